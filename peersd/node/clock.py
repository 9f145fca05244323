"""This device's wall clock, corrected by what its peers' clocks say (DESIGN 5, 7). It stamps entries; nothing is judged by it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

_log = logging.getLogger("peersd.node")

WATCH_INTERVAL_S: Final = 5.0
"""How often the peers' offsets are looked at; they change with every ping, each 15 s."""

TOLERANCE_MS: Final = 60_000
"""A device further than this off its peers' median is told (DESIGN 5)."""


def wall_clock_ms() -> int:
    """Milliseconds since 1970, as this machine has them."""
    return time.time_ns() // 1_000_000


def median_offset_ms(offsets_ms: Iterable[int]) -> int:
    """How far this clock is behind the median of all clocks, its own included; between two medians the one nearer to its own.

    A single peer never moves it: that takes more clocks on one side than there are on the other, this one counted.

    Args:
        offsets_ms: each peer's clock minus this one.
    """
    ordered = sorted([0, *offsets_ms])
    middle = len(ordered) // 2
    medians = ordered[middle : middle + 1] if len(ordered) % 2 else ordered[middle - 1 : middle + 1]
    return min(medians, key=abs)


class PeerClock:
    """The corrected clock. `now_ms` may be called in any thread.

    Args:
        wall_ms: the wall clock.
    """

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self.offset_ms = 0
        self._is_told = False

    def now_ms(self) -> int:
        """Milliseconds since 1970, corrected."""
        return self._wall_ms() + self.offset_ms

    def note_peers(self, offsets_ms: Iterable[int]) -> None:
        """Takes over what the linked peers' clocks say now."""
        self.offset_ms = median_offset_ms(offsets_ms)
        is_off = abs(self.offset_ms) > TOLERANCE_MS
        if is_off and not self._is_told:
            _log.warning("clock_differs", extra={"fields": {"behind_ms": self.offset_ms}})
        self._is_told = is_off
