"""uuid7(): time-ordered keys for rows, in RFC 9562's text form (section 5.7, monotonic by method 1 of section 6.2)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def unix_time_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Uuid7:
    """A source of UUIDs of version 7; each is greater than the one before it, as text and as bytes.

    A counter of 12 bits stands in `rand_a`; it starts at a random value below 2048 each millisecond. When it is used up, or the
    clock steps back, the time in the ids runs ahead of the clock.

    Args:
        clock_ms: milliseconds since 1970; injected, so that a simulation's ids follow its own time.
        entropy: gives as many random bytes as it is asked for.
    """

    def __init__(self, clock_ms: Callable[[], int] = unix_time_ms, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._clock_ms = clock_ms
        self._entropy = entropy
        self._last_ms = -1
        self._counter = 0
        # One source may serve the writer's thread and readers' threads.
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The next id: 36 characters, lower case."""
        with self._lock:
            random = self._entropy(10)
            now_ms = self._clock_ms()
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                self._counter = int.from_bytes(random[:2], "big") & 0x7FF
            elif self._counter < 0xFFF:
                self._counter += 1
            else:
                self._last_ms += 1
                self._counter = int.from_bytes(random[:2], "big") & 0x7FF
            tail = int.from_bytes(random[2:], "big") & ((1 << 62) - 1)
            number = ((self._last_ms & ((1 << 48) - 1)) << 80) | (7 << 76) | (self._counter << 64) | (2 << 62) | tail
        digits = f"{number:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
