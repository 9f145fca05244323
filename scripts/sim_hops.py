"""How far, how soon and in how many bytes entries spread: hundreds of devices in many groups, links limited, under virtual time.

    python -m scripts.sim_hops                       # 500 devices in 40 groups, 30 links each
    python -m scripts.sim_hops --devices 60 --groups 8 --links 12

The machines that ship choose the links and replicate; stores are held in memory. When the links have settled, a drawn device of
each group writes one small entry, which goes over all links and leaves a tree; then five others write one each, along it. What is
told of these is the worst of the five. It fails where a group is in pieces, somebody is not reached, or an entry takes longer,
more links or more bytes than the topology allows (peersd/testing/machines/spreading.py says what that is, and why).
`scripts/sim --scale` runs it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from peersd.testing.machines.crowd_runs import GroupRun, draw_latencies, link_crowd, run_group
from peersd.testing.machines.crowds import Crowd, draw_crowd
from peersd.testing.machines.mesh_network import Network
from peersd.testing.machines.spreading import Spread, copies_of_first_max, fastest_ms, hops_at_least, link_count
from peersd.testing.observing import memory_bytes
from peersd_protocol.constants import LINKS_MAX
from scripts.sim_arguments import number

HEAD = f"""\
                         | first entry, on all links              | {"the five after it, on a tree; the worst":<40}
members devices    links | hops (least)    ms (least) copies (most) | hops (least)    ms (least) copies of all"""


def run(seed: int, devices: int, groups: int, links_max: int) -> list[str]:
    """Runs all of it and prints what came.

    Returns:
        What is not as it may be; empty if all is.
    """
    began_s = time.process_time()
    crowd = draw_crowd(seed, devices, groups)
    network, settled_ms = link_crowd(seed, crowd, links_max)
    print(f"{devices} devices in {groups} groups, {links_max} links each", flush=True)
    print(*(f"  {line}" for line in _links_told(crowd, network, settled_ms)), sep="\n", flush=True)
    latencies = draw_latencies(seed, network)
    ran = [run_group(seed, network, latencies, group) for group in crowd.groups if any(network.groups[group].values())]
    print(*(f"  {line}" for line in HEAD.splitlines()), sep="\n")
    for group in sorted(ran, key=lambda group: len(group.links), reverse=True):
        print(f"  {_row(group)}")
    print(*(f"  {line}" for line in _told_of_all(ran)), sep="\n")
    cpu_s, used = time.process_time() - began_s, memory_bytes(os.getpid()) / 2**20
    print(f"  {cpu_s:.1f} s CPU, {used:.0f} MiB", flush=True)
    return [*_breaches_of_links(crowd, network), *(breach for group in ran for breach in group.breaches)]


def _links_told(crowd: Crowd, network: Network, settled_ms: int) -> list[str]:
    links = sorted(len(device.links) for device in network.devices.values())
    places = Counter(user for members in crowd.groups.values() for user in members)
    return [
        f"{len(places)} users, {len(crowd.personal)} with several devices, in 1 to {max(places.values())} groups",
        f"settled after {settled_ms / 1000:.1f} s: {network.link_count()} links, {links[0]} to {links[-1]} a device, median"
        f" {median(links):g}; {sum(count >= network.links_max for count in links)} devices have all they may",
    ]


def _breaches_of_links(crowd: Crowd, network: Network) -> list[str]:
    found = [
        f"a personal group in {len(network.parts(group))} pieces" for group in crowd.personal if len(network.parts(group)) > 1
    ]
    if network.degree_max() > network.links_max:
        found.append(f"a device has {network.degree_max()} links, more than {network.links_max}")
    return found


def _row(group: GroupRun) -> str:
    links = group.links
    told = f"{group.members:7} {len(links):7} {link_count(links):8} |"
    if not group.spreads:
        return f"{told} {'; '.join(group.breaches)}"
    first, *later = group.spreads
    farthest = max(later, key=lambda spread: (spread.hops_max, spread.took_ms_max))
    slowest = max(later, key=lambda spread: spread.took_ms_max)
    return (
        f"{told} {_hops(group, first)} {_times(group, first)} {first.copies:6.2f} ({copies_of_first_max(links):4.1f}) |"
        f" {_hops(group, farthest)} {_times(group, slowest)}"
        f" {max(spread.copies for spread in later):6.2f} {max(spread.copies_of_all for spread in later):6.2f}"
        f"{'  ' + '; '.join(group.breaches) if group.breaches else ''}"
    )


def _hops(group: GroupRun, spread: Spread) -> str:
    return f"{spread.hops_median:3g} {spread.hops_max:2} ({hops_at_least(group.links, spread.writer):2}) "


def _times(group: GroupRun, spread: Spread) -> str:
    return f"{spread.took_ms_max:5} ({max(fastest_ms(group.links, spread.writer).values()):4})"


def _told_of_all(ran: Sequence[GroupRun]) -> list[str]:
    whole = [group for group in ran if group.spreads]
    told = ["in all:"] if whole else []
    for name, entries in (
        ("first entries", [(group, group.spreads[0]) for group in whole]),
        ("later entries", [(group, spread) for group in whole for spread in group.spreads[1:]]),
    ):
        if not entries:
            continue
        hops = [count for _, spread in entries for count in spread.hops.values()]
        needed = sum(spread.needed_bytes for _, spread in entries)
        late = [spread.took_ms_max / max(fastest_ms(group.links, spread.writer).values()) for group, spread in entries]
        took_ms_max = max(spread.took_ms_max for _, spread in entries)
        copies = sum(spread.entry_bytes for _, spread in entries) / needed
        copies_of_all = sum(spread.all_bytes for _, spread in entries) / needed
        told += [
            f"  {len(entries)} {name}: hops median {median(hops):g}, most {max(hops)};"
            f" {copies:.2f} bytes of entries sent per byte delivered, {copies_of_all:.2f} with all that is said;",
            f"    all reached in {took_ms_max} ms, {median(late):.2f} times what the fastest ways take, at most {max(late):.2f}",
        ]
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it and returns the exit status: 0 if all was within what the topology allows."""
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--devices", type=number(20), default=500, help="at least 20")
    parser.add_argument("--groups", type=number(4), default=40, help="at least 4")
    parser.add_argument("--links", type=number(1), default=LINKS_MAX, help="that a device may have")
    parser.add_argument("--seed", type=number(0), default=1, help="of all that is drawn (default 1)")
    options = parser.parse_args(arguments)
    breaches = run(options.seed, options.devices, options.groups, options.links)
    for breach in breaches:
        print(f"FAILED: {breach}", file=sys.stderr)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
