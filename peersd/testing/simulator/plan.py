"""How much happens in a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Final

BACK_OFF_MS_MAX: Final = 5_000
"""The longest wait before a device is dialled or a channel opened again. The product's own minute would only be waited out."""

DRAWN = -1
"""Stands for what the seed decides."""


@dataclass(frozen=True)
class Plan:
    """How much happens.

    Attributes:
        devices: in all, 3 to 12; the first user has two if there are more than three (-1: most often 3 to 6, as the seed says).
        groups: founded before the start, at most 4 (-1: 2 to 4).
        links_max: of each device, which chooses its links itself; 0 for links by chance (-1: half of the seeds by chance, the
            others with 2 to 4).
        trouble_ms: how long there are writes, deeds of members and faults.
        converge_ms: by when all replicas are equal, after the last dead link was noticed and the last ticket was redeemed.
        write_every_ms: mean time between two writes, of whatever device.
        read_every_ms: mean time between two reads.
        deed_every_ms: mean time between two deeds that concern memberships.
        fault_every_ms: mean time between two faults.
    """

    devices: int = DRAWN
    groups: int = DRAWN
    links_max: int = DRAWN
    trouble_ms: int = 6_000
    converge_ms: int = 10_000
    write_every_ms: int = 60
    read_every_ms: int = 100
    deed_every_ms: int = 200
    fault_every_ms: int = 300

    @property
    def flags(self) -> str:
        """What scripts/sim needs to be told beside the seed."""
        changed = [field for field in fields(self) if getattr(self, field.name) != field.default]
        return "".join(f" --{field.name.replace('_', '-')} {getattr(self, field.name)}" for field in changed)

    def draw(self, random: Random) -> Plan:
        """The plan with all that the seed decides. The same is drawn whatever is given, so that a flag changes one thing only."""
        devices = random.choice((3, 4, 4, 5, 5, 6, random.randint(7, 12)))
        groups, links_max = random.choice((2, 2, 3, 4)), random.choice((0, 0, 0, 2, 3, 4))
        return replace(
            self,
            devices=devices if self.devices == DRAWN else self.devices,
            groups=groups if self.groups == DRAWN else self.groups,
            links_max=links_max if self.links_max == DRAWN else self.links_max,
        )


@dataclass(frozen=True)
class Choice:
    """What may be chosen for a field of a plan on a command line.

    Attributes:
        meaning: of the field.
        least: the smallest value.
        most: the largest; None for any.
        drawn: what the seed draws if the field is left out; "" if it draws nothing.
    """

    meaning: str
    least: int
    most: int | None = None
    drawn: str = ""


CHOICES: Final[Mapping[str, Choice]] = {
    "devices": Choice("devices in all, of one user each but for the first, who has two of more than three", 3, 12, "3 to 12"),
    "groups": Choice("groups that are there from the start", 1, 4, "2 to 4"),
    "links_max": Choice(
        "links that each device chooses itself; 0 for links by chance", 0, None, "0 for half of the seeds, else 2 to 4"
    ),
    "trouble_ms": Choice("how long there are writes, deeds of members and faults, in virtual ms", 1),
    "converge_ms": Choice(
        "by when all are equal once the last fault is noticed, in virtual ms; -1: at once, before any look", -1
    ),
    "write_every_ms": Choice("mean time between two writes, in virtual ms", 1),
    "read_every_ms": Choice("mean time between two reads, in virtual ms", 1),
    "deed_every_ms": Choice("mean time between two deeds that concern memberships, in virtual ms", 1),
    "fault_every_ms": Choice("mean time between two faults, in virtual ms", 1),
}
"""By the names of the fields of Plan."""
