"""The clock of timers."""

from __future__ import annotations

import trio

from peersd.monotonic import monotonic_ms


async def test_a_timer_finds_its_moment_reached_when_it_wakes(autojump_clock: trio.testing.MockClock) -> None:
    # Cut off instead of rounded, 2.038 s were 2037 ms: a timer set to 2038 woke, found nothing due and waited for 2.038 s again,
    # for ever where the clock stands still between events and for a millisecond of full load where it does not.
    for at_ms in range(1, 5000):
        await trio.sleep_until(at_ms / 1000)
        assert monotonic_ms() == at_ms


async def test_time_is_rounded_down(autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(7.9999)
    assert monotonic_ms() == 7999
