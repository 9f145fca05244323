"""The clock that timers run on: trio's, in whole milliseconds, as the machines count them."""

from __future__ import annotations

import trio

_ROUNDING_MS = 1e-6
"""Far below a millisecond, and above what a float of some 10^6 s, where trio's clock may begin, is wrong by."""


def monotonic_ms() -> int:
    """The time now, rounded down to milliseconds.

    At the moment to which a timer for `at_ms` was set, `at_ms / 1000` seconds, it is at_ms. Merely cut off, 2.038 s would be
    2037 ms: whoever then waits again for 2.038 s does so without end where a clock stands still between events, and for a
    millisecond at full load where it does not.
    """
    return int(trio.current_time() * 1000 + _ROUNDING_MS)
