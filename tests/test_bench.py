"""The bench's own arithmetic and command line; what it measures is no business of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import bench
from scripts.bench_figures import BARS, Bar, Figure, Spread, at_least, at_most, at_most_times, format_figure
from scripts.bench_limits import Durations
from scripts.bench_run import FULL, QUICK
from scripts.bench_swarm import draw_neighbours

ROOT = Path(__file__).resolve().parent.parent


def test_a_figure_is_the_median_of_its_rounds_beside_the_median_of_its_limits() -> None:
    figure = Figure.of("batch_1000", "rows/s", [30.0, 10.0, 20.0], [90.0, 80.0, 100.0])
    assert (figure.value, figure.limit, figure.share) == (20.0, 90.0, 20 / 90)
    assert figure.spread == 1.0
    assert Figure.of("batch_1000", "rows/s", [30.0]).spread is None


@pytest.mark.parametrize(
    ("bar", "value", "limit", "met"),
    [
        (at_least(0.3), 30, 100, True),
        (at_least(0.3), 29, 100, False),
        (at_least(0.3), 29, None, None),
        (at_most_times(4), 8, 2, True),
        (at_most_times(4), 8.1, 2, False),
        (at_most_times(4), 8, None, None),
        (at_most(50), 50, None, True),
        (at_most(50), 51, 1000, False),
    ],
)
def test_a_bar_is_compared_with_the_share_or_with_the_value(
    bar: Bar, value: float, limit: float | None, met: bool | None
) -> None:
    share = value / limit if limit else None
    assert bar.is_met(value, share) is met


def test_every_bar_stands_beside_a_figure() -> None:
    assert BARS.keys() - set(bench.choose(None)) == set()


def test_no_figure_has_two_scenarios() -> None:
    names = bench.choose(None)
    assert len(names) == len(set(names))


def test_a_name_chooses_what_begins_with_it_and_else_what_contains_it() -> None:
    assert bench.choose(["single"]) == ["single_1_client", "single_32_clients"]
    assert bench.choose(["wire"]) == ["catch_up_1000_wire", "catch_up_single_wire"]
    assert bench.choose(["batch", "one_change_p99"]) == ["one_change_p99", "batch_1000"]
    assert bench.choose(["batch", "no such figure"]) == ["batch_1000"]


def test_a_line_shows_value_limit_share_bar_and_what_an_earlier_run_had() -> None:
    figure = Figure.of("batch_1000", "rows/s", [20_000, 24_000, 22_000], [100_000])
    assert format_figure(figure).split() == "batch_1000 22,000 rows/s 18% 100,000 0.22 >= 0.25 x NO".split()
    old = {"value": 11_000, "share": 0.1}
    assert format_figure(figure, old).split()[-7:] == "NO was 11,000 x2.00 share was 0.10".split()
    assert format_figure(Figure("groups_handles", 20, "files")).split() == ["groups_handles", "20", "files"]


def test_a_summary_counts_the_bars_and_names_those_not_met() -> None:
    figures = [Figure("batch_1000", 3, "rows/s", limit=10), Figure("one_change_p50", 5, "ms", limit=1), Figure("x", 1, "ms")]
    assert bench.format_summary(figures) == "1 of 2 bars met; not met: one_change_p50"


def test_the_99th_percentile_of_a_hundred_samples_is_the_second_greatest() -> None:
    assert Spread.of([float(n) for n in range(100, 0, -1)]) == Spread(50.5, 99.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0)


def test_the_limit_of_one_change_is_two_commits_one_websocket_two_sockets_and_two_hops() -> None:
    durations = Durations(Spread(1, 0), Spread(10, 0), Spread(100, 0), Spread(1000, 0))
    assert durations.one_change_ms == 2 * 1 + 10 + 2 * 100 + 2 * 1000
    assert durations.one_transaction_ms == 1 + 100 + 1000


@pytest.mark.parametrize("devices", [6, 32])
def test_a_swarm_is_connected_and_each_device_has_as_many_neighbours_as_wanted(devices: int) -> None:
    names = [f"device {number}" for number in range(devices)]
    neighbours = draw_neighbours(names, 4, seed=1)
    assert all(len(others) == 4 and name not in others for name, others in neighbours.items())
    assert all(name in neighbours[other] for name, others in neighbours.items() for other in others)
    reached, new = {names[0]}, {names[0]}
    while new := {other for name in new for other in neighbours[name]} - reached:
        reached |= new
    assert reached == set(names)


def test_a_quick_run_measures_less_of_everything() -> None:
    assert QUICK.rounds == 1
    assert all(getattr(QUICK, name) <= getattr(FULL, name) for name in FULL.__dataclass_fields__)


def test_an_unknown_name_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--only", "no such figure"]) == 2
    assert "one_change_p50" in capsys.readouterr().err.splitlines()
    assert bench.main(["--list", "--only", "batch"]) == 0
    assert capsys.readouterr().out.split() == ["batch_1000"]


INTERRUPTED = """
import os, signal, trio, trio.testing
from scripts.daemon_process import run_until_interrupted
async def main():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                await trio.testing.wait_all_tasks_blocked()
        print("closed")
print(run_until_interrupted(main))
"""


def test_more_signals_while_daemons_are_closed_do_not_end_the_script_before_they_are() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["closed", "False"], "")


def test_a_quick_run_of_the_limits_writes_figures_and_compares_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    assert bench.main(["--quick", "--only", "limit", "--json", str(path)]) == 0
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    assert [figure["name"] for figure in told["figures"]] == bench.choose(["limit"])
    assert all(figure["value"] > 0 and len(figure["rounds"]) == 1 for figure in told["figures"])
    assert told["commit"] and told["machine"]["cores"] and told["sizes"]["bulk_rows"] == QUICK.bulk_rows
    capsys.readouterr()
    assert bench.main(["--quick", "--only", "limit_hop_p50", "--compare", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if " was " in line] == ["limit_hop_p50"]
