"""Runs the dialing machine: its timers, its dials, and what it is told of the machine's network (SPEC: L-21 to L-25, L-33)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import trio

from peersd.monotonic import monotonic_ms
from peersd_protocol.dialing import CancelTimer, Dial, Dialing, Effect, Patience, SetTimer

_log = logging.getLogger("peersd.node")

NETWORK_INTERVAL_S: Final = 5.0
"""How often the machine's addresses are looked at; a look takes less than a millisecond (guess)."""


class Dialer:
    """Says when to dial whom.

    Args:
        dial: begins a dial, without waiting; its end is told by `linked` or `dial_ended`.
        changed: called when `failing` or `refused` may have changed.
        patience: the waits between dials.
        draw: gives random numbers from 0 to below 1, which the waits vary by.
    """

    def __init__(
        self, dial: Callable[[Dial], None], changed: Callable[[], None], patience: Patience | None, draw: Callable[[], float]
    ) -> None:
        self._draw = draw
        self._dial = dial
        self._changed = changed
        self._machine = Dialing(patience)
        self._timers: dict[bytes, float] = {}
        self._timers_changed = trio.Event()

    @property
    def failing(self) -> frozenset[bytes]:
        """Devices that did not answer the last round of dials."""
        return self._machine.failing

    @property
    def refused(self) -> frozenset[bytes]:
        """Devices that answered, but one of the two sides wanted no link."""
        return self._machine.refused

    async def run_timers(self) -> None:
        """Dials when waits are over, until cancelled."""
        while True:
            self._timers_changed = trio.Event()
            with trio.move_on_at(min(self._timers.values(), default=float("inf"))):
                await self._timers_changed.wait()
            now = trio.current_time()
            for timer in [timer for timer, at in self._timers.items() if at <= now]:
                if self._timers.pop(timer, None) is not None:
                    self._perform(self._machine.timer_expired(timer, monotonic_ms()))

    async def run_network_watch(self, addresses: Callable[[], Iterable[str]]) -> None:
        """Dials all that waits when the machine's own addresses have changed, until cancelled."""
        known = frozenset(addresses())
        while True:
            await trio.sleep(NETWORK_INTERVAL_S)
            present = frozenset(addresses())
            if present != known:
                _log.info("network_changed", extra={"fields": {"addresses": len(present)}})
                known = present
                self.network_changed()

    def network_changed(self) -> None:
        """Dials all that waits."""
        self._perform(self._machine.network_changed())
        self._changed()

    def want_device(self, device: bytes, urls: Iterable[str]) -> None:
        """A link to this device is wanted, too."""
        self._perform(self._machine.want_device(device, urls))

    def want_only(self, devices: Mapping[bytes, Iterable[str]]) -> None:
        """Links to these devices are wanted and to no others."""
        self._perform(self._machine.want_only(devices))

    def unwant(self, device: bytes) -> None:
        """No link to this device is wanted."""
        self._perform(self._machine.unwant(device))

    def linked(self, device: bytes, *, is_dialled: bool) -> None:
        """A link is up and stays."""
        self._perform(self._machine.linked(device, monotonic_ms(), is_dialled=is_dialled))

    def unlinked(self, device: bytes, *, is_refused: bool) -> None:
        """A link ended and no other took its place."""
        self._perform(self._machine.unlinked(device, monotonic_ms(), self._draw(), is_refused=is_refused))

    def dial_ended(self, target: bytes, *, is_refused: bool = False) -> None:
        """A dial ended without a link that stays."""
        self._perform(self._machine.dial_ended(target, monotonic_ms(), self._draw(), is_refused=is_refused))
        self._changed()

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Dial():
                    self._dial(effect)
                case SetTimer(timer, at_ms):
                    self._timers[timer] = at_ms / 1000
                    self._timers_changed.set()
                case CancelTimer(timer):
                    self._timers.pop(timer, None)
