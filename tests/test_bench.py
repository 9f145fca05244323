"""The bench's own arithmetic and command line; what it measures is no business of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scripts import bench
from scripts.bench_figures import BARS, Bar, Figure, Spread, at_least, at_most, at_most_times, format_figure
from scripts.bench_growth import Growth
from scripts.bench_limits import Durations
from scripts.bench_plot import Curve, Panel, draw
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
    assert BARS.keys() - set(bench.NAMES) == set()


def test_no_figure_has_two_scenarios() -> None:
    assert len(bench.NAMES) == len(set(bench.NAMES))


def listed(capsys: pytest.CaptureFixture[str], *only: str) -> list[str]:
    """What --list names."""
    assert bench.main(["--list", *(argument for name in only for argument in ("--only", name))]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_name_chooses_what_begins_with_it_and_else_what_contains_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "single") == ["single_1_client", "single_32_clients"]
    assert listed(capsys, "wire") == ["catch_up_1000_wire", "catch_up_single_wire", "catch_up_mixed_wire"]
    assert listed(capsys, "batch", "one_change_p99") == ["one_change_p99", "batch_1000"]
    assert listed(capsys) == list(bench.NAMES)


def test_a_line_shows_value_limit_share_bar_and_what_an_earlier_run_had() -> None:
    figure = Figure.of("batch_1000", "rows/s", [20_000, 24_000, 22_000], [100_000])
    assert format_figure(figure).split() == "batch_1000 22,000 rows/s 18% 100,000 0.22 >= 0.25 x NO".split()
    old = {"value": 11_000, "share": 0.1}
    assert format_figure(figure, old).split()[-7:] == "NO was 11,000 x2.00 share was 0.10".split()
    assert format_figure(Figure("groups_handles", 20, "files")).split() == ["groups_handles", "20", "files"]


def test_a_summary_counts_the_bars_and_names_those_not_met() -> None:
    figures = [Figure("batch_1000", 3, "rows/s", limit=10), Figure("one_change_p50", 5, "ms", limit=1), Figure("x", 1, "ms")]
    told = "1 of 2 bars met; not met: one_change_p50"
    assert bench.format_summary(figures, quick=False) == told
    assert bench.format_summary(figures, quick=True) == f"{told} (the bars are for a whole run)"


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--only batch --only nosuch", "no figure is called 'nosuch'; scripts/bench --list names them"),
        ("--compare FOLDER/missing.json", "missing.json: No such file or directory"),
        ("--compare FOLDER/half.json", "half.json is nothing that --json wrote"),
        ("--compare FOLDER/other.json", "other.json is nothing that --json wrote"),
        ("--compare FOLDER/list.json", "list.json is nothing that --json wrote"),
        ("--json FOLDER", "cannot be written"),
        ("--json FOLDER/missing/new.json", "new.json cannot be written"),
        ("--growth FOLDER/missing/new.svg", "new.svg cannot be written"),
        ("--growth FOLDER/new.svg --only batch", "it measures no figures"),
        ("--comp FOLDER/missing.json", "unrecognized arguments: --comp"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence_before_anything_is_measured(
    arguments: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half.json").write_text('{"commit": ', "utf-8")
    (tmp_path / "other.json").write_text('{"name": "other"}', "utf-8")
    (tmp_path / "list.json").write_text("[1]", "utf-8")
    with pytest.raises(SystemExit) as refusal:
        bench.main(arguments.replace("FOLDER", str(tmp_path)).split())
    told = capsys.readouterr()
    assert refusal.value.code == 2
    assert sentence in told.err.splitlines()[-1]
    assert not told.out


def test_a_comparison_says_in_what_else_the_runs_are_not_alike() -> None:
    now: dict[str, Any] = {"quick": False, "machine": {"processor": "A", "cores": 2, "load": 1}}
    old: dict[str, Any] = {"commit": "c0ffee", "at": "then", "figures": [], **now}
    assert bench.format_comparison([], now, old).splitlines()[0] == "beside commit c0ffee of then:"
    old |= {"quick": True, "machine": {"processor": "B", "cores": 2, "load": 9}}
    assert bench.format_comparison([], now, old).splitlines()[0] == "beside commit c0ffee of then, a quick run, processor B:"


def test_a_plot_has_each_point_at_its_logarithm_with_its_number() -> None:
    curves = [Curve("a <curve>", [(10, 1), (100, 10), (1000, 100)]), Curve("flat", [(10, 10), (1000, 10)])]
    picture = ElementTree.fromstring(
        draw([Panel("title", "rows", curves), Panel("one", "rows", [Curve("x", [(5, 5)])])], "where")
    )
    svg = "{http://www.w3.org/2000/svg}"
    lines = [line.get("points", "").split() for line in picture.iter(f"{svg}polyline")]
    assert [len(line) for line in lines] == [3, 2, 1]
    (x1, y1), (x2, y2), (x3, y3) = [tuple(map(float, point.split(","))) for point in lines[0]]
    assert x2 - x1 == pytest.approx(x3 - x2) and y1 - y2 == pytest.approx(y2 - y3) and y1 > y2
    assert lines[1][0].split(",")[1] == lines[1][1].split(",")[1] == lines[0][1].split(",")[1]
    texts = [text.text for text in picture.iter(f"{svg}text")]
    assert {"title", "a <curve>", "flat", "rows", "1,000", "where"} <= set(texts)


def test_what_grows_is_kept_by_panel_and_curve(capsys: pytest.CaptureFixture[str]) -> None:
    growth = Growth()
    for x in (1_000, 10_000):
        growth.add("us a row", "rows", "peersd", x, 5)
        growth.add("us a row", "rows", "plain", x, 4)
    growth.add("us a row", "writers", "peersd", 1, 5)
    assert [(panel.x_name, [curve.name for curve in panel.curves]) for panel in growth.panels()] == [
        ("rows", ["peersd", "plain"]),
        ("writers", ["peersd"]),
    ]
    assert growth.panels()[0].curves[0].points == [(1_000, 5), (10_000, 5)]
    assert len(capsys.readouterr().out.splitlines()) == 5


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
    assert [figure["name"] for figure in told["figures"]] == bench.find_figures("limit")
    assert all(figure["value"] > 0 and len(figure["rounds"]) == 1 for figure in told["figures"])
    assert told["commit"] and told["machine"]["cores"] and told["sizes"]["bulk_rows"] == QUICK.bulk_rows
    capsys.readouterr()
    assert bench.main(["--quick", "--only", "limit_hop_p50", "--compare", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if " was " in line] == ["limit_hop_p50"]
