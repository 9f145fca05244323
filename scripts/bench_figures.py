"""What the bench's numbers are called, what stands beside them, and the bars that they have to meet."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True)
class Bar:
    """What a figure has to reach.

    Attributes:
        kind: what is compared with the number: at least this part of the limit, at most so many times the limit, or at most
            this value, whatever the limit.
        number: see kind; a value in the figure's unit.
    """

    kind: Literal["share_min", "share_max", "value_max"]
    number: float

    def is_met(self, value: float, share: float | None) -> bool | None:
        """Whether a figure reaches it; None if it takes a limit and there is none."""
        if self.kind == "value_max":
            return value <= self.number
        if share is None:
            return None
        return share >= self.number if self.kind == "share_min" else share <= self.number

    def __str__(self) -> str:
        sign = ">=" if self.kind == "share_min" else "<="
        return f"{sign} {format_number(self.number)}" + ("" if self.kind == "value_max" else " x")


def at_least(share: float) -> Bar:
    """At least this part of the limit."""
    return Bar("share_min", share)


def at_most_times(times: float) -> Bar:
    """At most so many times the limit."""
    return Bar("share_max", times)


def at_most(value: float) -> Bar:
    """At most this, in the figure's unit."""
    return Bar("value_max", value)


BARS: Final[Mapping[str, Bar]] = {
    "catch_up_1000": at_least(0.30),
    "catch_up_1000_wire": at_most(50),
    "catch_up_1000_disk": at_most(190),
    "catch_up_1000_disk_writer": at_most(190),
    "catch_up_single": at_least(0.10),
    "catch_up_single_wire": at_most(110),
    "catch_up_single_disk": at_most(260),
    "catch_up_single_disk_writer": at_most(260),
    "catch_up_million": at_least(0.85),
    "catch_up_million_peak_sender": at_most(150),
    "catch_up_million_peak_receiver": at_most(150),
    "one_change_p50": at_most_times(4),
    "one_change_p99": at_most_times(10),
    "beside_bulk_p99": at_most_times(6),
    "reconnect_time_few": at_most(15),
    "reconnect_time_many": at_most(15),
    "reconnect_bytes_few": at_most(2_000),
    "reconnect_bytes_many": at_most(2_000),
    "reconnect_group_bytes_few": at_most(100),
    "reconnect_group_bytes_many": at_most(100),
    "single_1_client": at_least(1 / 3),
    "single_32_clients": at_least(0.45),
    "batch_1000": at_least(0.25),
    "link_echo_p50": at_most_times(1.6),
    "link_echo_beside_bulk_p99": at_most_times(5),
    "link_bulk_out": at_least(0.6),
    "link_bulk_in": at_least(0.6),
    "groups_ready": at_most(2_000),
    "groups_memory": at_most(110),
    "groups_idle": at_most(1),
    "groups_reconnect_time": at_most(400),
    "groups_reconnect_bytes": at_most(35_000),
    "groups_reconnect_group_bytes": at_most(100),
    "swarm_visible": at_most(1_000),
    "swarm_entry_bytes": at_most(2.5),
}
"""By the figure's name. Some of them are for sizes that only a whole run has."""


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: the same in every run.
        value: the median of its rounds.
        unit: rows/s, ms, bytes and so on; a unit by the second is better when greater, all others when smaller.
        rounds: what each round gave.
        limit: what the machine allows, in the same unit, measured beside the rounds; None where there is no such thing.
    """

    name: str
    value: float
    unit: str
    rounds: tuple[float, ...] = ()
    limit: float | None = None

    @classmethod
    def of(cls, name: str, unit: str, rounds: Sequence[float], limits: Sequence[float] = ()) -> Figure:
        """The median of the rounds beside the median of the limits that were measured with them."""
        return cls(name, statistics.median(rounds), unit, tuple(rounds), statistics.median(limits) if limits else None)

    @property
    def share(self) -> float | None:
        """The value by the limit: what is reached of a rate, how many times as long a duration is; None without a limit."""
        return self.value / self.limit if self.limit else None

    @property
    def spread(self) -> float | None:
        """The greatest of the rounds less the smallest, by the median; None for a single round or a median of nothing."""
        if len(self.rounds) < 2 or not self.value:
            return None
        return (max(self.rounds) - min(self.rounds)) / abs(self.value)

    @property
    def bar(self) -> Bar | None:
        """What it has to reach, if anything."""
        return BARS.get(self.name)

    @property
    def met(self) -> bool | None:
        """Whether it does; None without a bar."""
        return self.bar.is_met(self.value, self.share) if self.bar else None

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "rounds": list(self.rounds),
            "limit": self.limit,
            "share": self.share,
            "bar": str(self.bar) if self.bar else None,
            "met": self.met,
        }


def format_number(value: float) -> str:
    """Three digits that matter, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


HEADER: Final = f"{'figure':<32} {'value':>10} {'unit':<9} {'spread':>6} {'limit':>10} {'share':>6} {'bar':>9}  met"


def format_figure(figure: Figure, old: Mapping[str, Any] | None = None) -> str:
    """A line of the table; with the ratio to an earlier run's figure where there is one."""
    limit = "" if figure.limit is None else format_number(figure.limit)
    share = "" if figure.share is None else f"{figure.share:.2f}"
    spread = "" if figure.spread is None else f"{100 * figure.spread:.0f}%"
    met = {True: "yes", False: "NO", None: ""}[figure.met]
    line = (
        f"{figure.name:<32} {format_number(figure.value):>10} {figure.unit:<9} {spread:>6} {limit:>10} {share:>6} "
        f"{figure.bar or ''!s:>9}  {met:<3}"
    )
    if old and old["value"]:
        line += f"   was {format_number(old['value']):>10}  x{figure.value / old['value']:.2f}"
        if figure.share is not None and old.get("share"):
            line += f"  share was {old['share']:.2f}"
    return line.rstrip()


@dataclass(frozen=True)
class Spread:
    """Samples of one duration, in ms: their median and 99th percentile."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Spread:
        """From at least two samples."""
        ordered = sorted(samples_ms)
        # The nearest rank: of 100 samples the 99th, so that one stray sample in a hundred is not the figure.
        return cls(statistics.median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1])
