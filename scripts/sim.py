"""Runs simulations by their seeds and tells which failed, with the command that replays each."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import fields

from peersd.testing.simulator import Plan, SimulationFailed, run_seed


def parse_seeds(text: str) -> range:
    """`7` or `0-99`, both ends included."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    """Runs the seeds; exit status 1 if one failed."""
    parser = argparse.ArgumentParser(prog="scripts/sim", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--seeds", type=parse_seeds, default=parse_seeds("0-39"), help="first and last seed, such as 0-99 (default 0-39)"
    )
    which.add_argument("--seed", type=parse_seeds, dest="seeds", help="one seed")
    parser.add_argument("--trace", action="store_true", help="print all that happened: virtual ms, device, event")
    parser.add_argument("--until-failure", action="store_true", help="end at the first seed that fails")
    for field in fields(Plan):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(
            flag, type=int, default=field.default, help=f"see peersd.testing.simulator.Plan (default {field.default})"
        )
    chosen = parser.parse_args()
    plan = Plan(**{field.name: getattr(chosen, field.name) for field in fields(Plan)})
    failed: list[int] = []
    for seed in chosen.seeds:
        began_s = time.monotonic()
        try:
            trace = run_seed(seed, plan).trace
        except SimulationFailed as failure:
            failed.append(seed)
            print(f"seed {seed}: FAILED")
            print(*(failure.trace.lines if chosen.trace else ()), failure, sep="\n", flush=True)
            if chosen.until_failure:
                break
            continue
        if chosen.trace:
            print(*trace.lines, sep="\n")
        took_s = time.monotonic() - began_s
        print(f"seed {seed}: {trace.hash} {len(trace.lines)} events, {took_s:.1f} s; {trace.lines[-1].strip()}", flush=True)
    print(f"{len(chosen.seeds)} seeds, {len(failed)} failed{': ' + ' '.join(map(str, failed)) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
