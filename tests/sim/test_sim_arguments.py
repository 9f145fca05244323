"""What scripts/sim refuses on its command line, and that it says what is valid."""

from __future__ import annotations

import sys

import pytest

from scripts import sim


def status_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """What scripts/sim exits with by its command line alone."""
    monkeypatch.setattr(sys, "argv", ["scripts/sim", *arguments])
    with pytest.raises(SystemExit) as ended:
        sim.main()
    return ended.value.code


@pytest.mark.sim
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--seeds 5-2", "argument --seeds: '5-2' has no seed in it; the first one comes first, as in 2-5"),
        ("--seeds x", "argument --seeds: 'x' is no seed; valid are 7, or 0-99 for the first and the last"),
        ("--seed 3 --only 99999", "argument --only: seed 3 has the steps 0 to "),
        ("--seed 3 --only x", "argument --only: 'x' are no steps; valid are such as 3,7-9, or none"),
        ("--seed 3 --only 9-7", "argument --only: '9-7' are no steps; valid are such as 3,7-9, or none"),
        ("--seed 3 --only 7-", "argument --only: '7-' are no steps; valid are such as 3,7-9, or none"),
        ("--seeds 3-4 --only 1", "argument --only: the steps of each seed are others; choose one seed by --seed"),
        ("--devices 1", "argument --devices: 1 is out of range; valid are 3 to 12, or -1 for what the seed draws"),
        ("--devices 13", "argument --devices: 13 is out of range; valid are 3 to 12, or -1 for what the seed draws"),
        ("--groups 9", "argument --groups: 9 is out of range; valid are 1 to 4, or -1 for what the seed draws"),
        ("--jobs 0", "argument --jobs: 0 is out of range; valid are 1 or more"),
        ("--deed-every-ms 0", "argument --deed-every-ms: 0 is out of range; valid are 1 or more"),
        ("--dev 4", "unrecognized arguments: --dev 4"),
        ("--frames 0", "argument --frames: 0 is out of range; valid are 1 or more"),
        ("--frames -5", "argument --frames: -5 is out of range; valid are 1 or more"),
        ("--kills -1", "argument --kills: -1 is out of range; valid are 0 or more"),
        ("--kills 0 --entries -4", "argument --entries: -4 is out of range; valid are 0 or more"),
        ("--kills 0 --first-seed 3", "unrecognized arguments: --first-seed 3"),
        ("--planted --in mars", "argument --in: invalid choice: 'mars' (choose from "),
        ("--planted skips-the-cut skips-it", "argument BUG: no planted bug is called skips-it; there are "),
        ("--planted --patches tests/sim", "argument --patches: no planted bug is in tests/sim"),
        ("--planted --jobs 0", "argument --jobs: 0 is out of range; valid are 1 or more"),
        ("--scale --devices 1", "argument --devices: one device has nobody; valid are 2 or more, or 0 to leave that run out"),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_is_valid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert status_of(monkeypatch, *arguments.split()) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert f"error: {said}" in errors


@pytest.mark.sim
def test_the_help_says_what_each_number_of_a_plan_means(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(monkeypatch, "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--devices N devices in all, of one user each but for the first" in told
    assert "(default: the seed draws 3 to 12)" in told
    assert "--fault-every-ms N mean time between two faults, in virtual ms (default: 300)" in told
