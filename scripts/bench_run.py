"""One run of the bench: how much of everything, where, and the figures as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.bench_figures import Figure, format_figure
from scripts.bench_limits import Limits


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured.

    Attributes:
        rounds: of every figure.
        rounds_large: of those of the large rows, of the many groups and of the swarm.
        few_rows, bulk_rows, large_rows: in a group.
        changes: of a round of one change after the other.
        single_rows, parallel_rows, batches: of a round of writing: by one client, by many, in transactions of 1,000.
        link_megabytes: of bulk moved over a link in a round.
        groups, group_rows: groups between two devices, and rows in each.
        idle_s: how long the many groups are watched while nothing happens.
        devices, neighbours: of the swarm, and the links of each.
    """

    rounds: int
    rounds_large: int
    few_rows: int
    bulk_rows: int
    large_rows: int
    changes: int
    single_rows: int
    parallel_rows: int
    batches: int
    link_megabytes: int
    groups: int
    group_rows: int
    idle_s: float
    devices: int
    neighbours: int


FULL: Final = Sizes(
    rounds=5,
    rounds_large=3,
    few_rows=1_000,
    bulk_rows=100_000,
    large_rows=1_000_000,
    changes=300,
    single_rows=500,
    parallel_rows=3_200,
    batches=20,
    link_megabytes=256,
    groups=300,
    group_rows=100,
    idle_s=10,
    devices=32,
    neighbours=4,
)
QUICK: Final = Sizes(
    rounds=1,
    rounds_large=1,
    few_rows=500,
    bulk_rows=5_000,
    large_rows=20_000,
    changes=50,
    single_rows=50,
    parallel_rows=320,
    batches=2,
    link_megabytes=16,
    groups=20,
    group_rows=20,
    idle_s=2,
    devices=6,
    neighbours=4,
)


@dataclass
class Run:
    """One run.

    Attributes:
        folder: for files, each scenario in one of its own.
        sizes: how much.
        limits: what the machine allows.
        wanted: whether a figure of this name is to be kept; others that come along with it are dropped.
        figures: those kept, in their order.
        is_told: whether each is printed as it comes.
    """

    folder: Path
    sizes: Sizes
    limits: Limits
    wanted: Callable[[str], bool] = lambda name: True
    figures: list[Figure] = field(default_factory=list[Figure])
    is_told: bool = True

    def add(self, name: str, unit: str, rounds: Sequence[float], limits: Sequence[float] = ()) -> Figure:
        """Keeps a figure."""
        figure = Figure.of(name, unit, rounds, limits)
        if self.wanted(name):
            self.figures.append(figure)
        if self.wanted(name) and self.is_told:
            print(format_figure(figure), flush=True)
        return figure
