"""The wall clocks of the devices: coarse, wrong, jumping, standing still."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, Protocol

FIRST_WALL_MS: Final = 1_700_000_000_000
"""The right time at virtual time 0."""

STEP_MS: Final = 250
"""Clocks are coarse and most differ by whole steps, so that devices often stamp alike and the tie-break has work."""

SKEW_STEPS_MAX: Final = 8
HOUR_MS: Final = 3_600_000
TEN_YEARS_MS: Final = 10 * 365 * 24 * HOUR_MS


class WallClock(Protocol):
    """A device's own idea of the time."""

    def __call__(self) -> int:
        """Milliseconds since 1970."""
        ...

    def disturb(self, random: Random) -> str:
        """Something happens to the clock; returns what, in words."""
        ...


class SimulatedWallClock:
    """A clock that may be wrong from the start, and gets other errors on the way.

    Args:
        now_ms: virtual time.
        random: of this clock's first error.

    Attributes:
        skew_ms: by how much it is wrong, while it goes.
    """

    def __init__(self, now_ms: Callable[[], int], random: Random) -> None:
        self._now_ms = now_ms
        self._frozen_ms: int | None = None
        self.skew_ms = STEP_MS * random.randint(-SKEW_STEPS_MAX, SKEW_STEPS_MAX)
        kind = random.random()
        if kind < 0.2:
            self.skew_ms = random.randint(-HOUR_MS, HOUR_MS)
        elif kind < 0.25:
            self.skew_ms = random.choice((-1, 1)) * TEN_YEARS_MS
        elif kind < 0.3:
            self._frozen_ms = self()

    def __call__(self) -> int:
        """See WallClock."""
        if self._frozen_ms is not None:
            return self._frozen_ms
        return FIRST_WALL_MS + self._now_ms() // STEP_MS * STEP_MS + self.skew_ms

    def disturb(self, random: Random) -> str:
        """See WallClock."""
        kind = random.random()
        if self._frozen_ms is not None:
            self._frozen_ms = None
            return "goes on"
        if kind < 0.25:
            self._frozen_ms = self()
            return "stands still"
        if kind < 0.4:
            self.skew_ms = random.choice((-1, 0, 1)) * TEN_YEARS_MS
            return f"is {self.skew_ms // TEN_YEARS_MS * 10} years off"
        if kind < 0.6:
            self.skew_ms = 0
            return "is set right"
        jump_ms = random.randint(-HOUR_MS, HOUR_MS)
        self.skew_ms += jump_ms
        return f"jumps by {jump_ms} ms"
