"""When to dial which address of which device (SPEC: L-21 to L-25, L-33, DESIGN 5).

The addresses of a device that a link is wanted to are tried one after the other; when a round of them has failed, the device
waits, twice as long each time, and less by a random part, so that devices which lost each other at once do not dial each other at
once for ever. What was learnt of a device is kept when it is not wanted any more, so that wanting it again does not make a dial
that the wait forbids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from peersd_protocol.constants import (
    ADDRESSES_PER_DEVICE_MAX,
    DEVICES_REMEMBERED_MAX,
    DIAL_DELAY_MS,
    DIAL_DELAY_MS_MAX,
    DIAL_LIVED_MS,
    DIAL_REFUSED_MS,
    DIALS_IN_FLIGHT_MAX,
    LANE_RETRY_MS_MAX,
)
from peersd_protocol.errors import LocalProtocolError


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial `url` now. Either `linked(device, …, is_dialled=True)` or `dial_ended(device, …)` must follow.

    Attributes:
        device: the device that must answer.
        url: where.
    """

    device: bytes
    url: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call timer_expired(device) at `at_ms` on the clock of the calls' `now_ms`; it replaces an earlier one of that device."""

    device: bytes
    at_ms: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """The device's timer is not needed any more. One that expires all the same does no harm."""

    device: bytes


Effect: TypeAlias = Dial | SetTimer | CancelTimer


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait between rounds of dials, and before a group is opened again.

    Attributes:
        delay_ms: the longest wait after the first failed round; doubles with each.
        delay_ms_max: where doubling ends.
        lived_ms: a link that lived this long starts the waits over.
        refused_ms: the longest wait after the first link that the other side did not want.
        reopen_ms_max: where the doubling of the waits ends before a group is opened again on a link.
    """

    delay_ms: int = DIAL_DELAY_MS
    delay_ms_max: int = DIAL_DELAY_MS_MAX
    lived_ms: int = DIAL_LIVED_MS
    refused_ms: int = DIAL_REFUSED_MS
    reopen_ms_max: int = LANE_RETRY_MS_MAX

    def wait_ms(self, failed_rounds: int, jitter: float, *, is_refused: bool = False) -> int:
        """The wait after this many failed rounds (from 1): from half to all of the doubled delay, as `jitter` (0 to 1) says."""
        # The exponent is bounded because a device may be away for years of failed rounds.
        whole = min(self.delay_ms_max, self.delay_ms << min(failed_rounds - 1, 32))
        return round(max(whole, self.refused_ms if is_refused else 0) * (0.5 + 0.5 * jitter))


@dataclass(slots=True)
class _Target:
    """What is known of one device.

    Attributes:
        urls: addresses, the next to try first.
        tries_left: addresses still to try in this round.
        failed_rounds: rounds that failed since the last link that lived.
        is_failing: nobody answered in the last round.
        is_refused: it answered, and one of the two sides ended the last link because it wants none.
        is_waiting: a timer is set.
        wait_ends_ms: when the last wait ends or ended.
    """

    urls: list[str] = field(default_factory=list[str])
    tries_left: int = 0
    failed_rounds: int = 0
    is_failing: bool = False
    is_refused: bool = False
    is_waiting: bool = False
    wait_ends_ms: int = 0

    def add(self, urls: Iterable[str]) -> int:
        """Puts new addresses first and returns how many; above ADDRESSES_PER_DEVICE_MAX the last ones fall out."""
        new = [url for url in dict.fromkeys(urls) if url not in self.urls][:ADDRESSES_PER_DEVICE_MAX]
        self.urls = [*new, *self.urls][:ADDRESSES_PER_DEVICE_MAX]
        return len(new)

    def put_last(self, url: str) -> None:
        """Moves a tried address behind the others, if it is still known."""
        if url in self.urls:
            self.urls.remove(url)
            self.urls.append(url)


class Dialing:
    """Decides on dials: at most one at a time per device, none while it is linked, a bounded number in all.

    Args:
        patience: the waits between rounds.
        in_flight_max: dials at once; further ones queue.
    """

    def __init__(self, patience: Patience | None = None, *, in_flight_max: int = DIALS_IN_FLIGHT_MAX) -> None:
        self._patience: Final = patience or Patience()
        self._in_flight_max: Final = in_flight_max
        self._targets: dict[bytes, _Target] = {}
        self._unwanted: dict[bytes, _Target] = {}  # devices that failed, the longest unwanted first
        self._in_flight: dict[bytes, str] = {}  # with the URL; a dial outlives the wish for it and still takes its place
        self._linked_at_ms: dict[bytes, int] = {}  # wanted or not: a device may dial us before we want it
        self._due: dict[bytes, None] = {}  # to be dialled as soon as in_flight_max allows, the first due first

    @property
    def targets(self) -> tuple[bytes, ...]:
        """The devices that links are wanted to."""
        return tuple(self._targets)

    @property
    def failing(self) -> frozenset[bytes]:
        """The devices that did not answer in the last round of dials, wanted now or not."""
        return self._devices(lambda target: target.is_failing)

    @property
    def refused(self) -> frozenset[bytes]:
        """The devices that answered, but whose last link one of the two sides did not want; wanted now or not."""
        return self._devices(lambda target: target.is_refused)

    def _devices(self, which: Callable[[_Target], bool]) -> frozenset[bytes]:
        known = (*self._targets.items(), *self._unwanted.items())
        return frozenset(key for key, target in known if which(target))

    def want_device(self, device: bytes, urls: Iterable[str]) -> list[Effect]:
        """A link to `device` is wanted, and these are addresses of it, the best first. New ones are tried at once."""
        return self._want(device, urls)

    def want_only(self, devices: Mapping[bytes, Iterable[str]]) -> list[Effect]:
        """Links to these devices are wanted, at these addresses, and to no others."""
        effects: list[Effect] = []
        for key in [key for key in self._targets if key not in devices]:
            effects += self.unwant(key)
        for device, urls in devices.items():
            effects += self._want(device, urls)
        return effects

    def unwant(self, key: bytes) -> list[Effect]:
        """No link to that device is wanted any more. A dial under way is not called back."""
        target = self._targets.pop(key, None)
        self._due.pop(key, None)
        if target is None:
            return []
        if target.failed_rounds or key in self._in_flight:
            self._remember(key, target)
        return self._stop_waiting(key, target)

    def network_changed(self) -> list[Effect]:
        """Addresses that failed may answer now: all that wait are dialled at once, and the waits start over."""
        effects: list[Effect] = []
        self._unwanted.clear()
        for key, target in self._targets.items():
            target.failed_rounds, target.is_failing, target.is_refused = 0, False, False
            effects += self._start_round(key, target)
        return effects + self._fill()

    def linked(self, device: bytes, now_ms: int, *, is_dialled: bool = False) -> list[Effect]:
        """A link to `device` is up and stays, whoever dialled.

        Args:
            device: the remote device.
            now_ms: monotonic time in milliseconds.
            is_dialled: whether a Dial made the link.

        Raises:
            LocalProtocolError: no dial of the device is under way.
        """
        effects: list[Effect] = []
        if is_dialled:
            self._end_dial(device)
        self._linked_at_ms.setdefault(device, now_ms)
        self._due.pop(device, None)
        if target := self._known(device):
            target.is_failing, target.is_refused, target.wait_ends_ms = False, False, 0
            effects += self._stop_waiting(device, target)
        return effects + self._fill()

    def unlinked(self, device: bytes, now_ms: int, jitter: float, *, is_refused: bool = False) -> list[Effect]:
        """There is no link to `device` any more. After one that lived, the waits start over; after others they grow.

        Args:
            device: the remote device.
            now_ms: monotonic time in milliseconds.
            jitter: random, 0 to 1.
            is_refused: one of the two sides ended it because it wants none.
        """
        linked_at_ms, target = self._linked_at_ms.pop(device, None), self._known(device)
        if linked_at_ms is None:
            return []
        if target is None:
            if not is_refused:
                return []
            target = self._remember(device, _Target())
        if now_ms - linked_at_ms >= self._patience.lived_ms and not is_refused:
            target.failed_rounds = 0
        target.is_refused = is_refused
        if device in self._in_flight:  # what follows is decided when that dial ends
            if is_refused:
                target.tries_left = 0
                target.wait_ends_ms = now_ms + self._patience.wait_ms(1, jitter, is_refused=True)
            return []
        return self._wait(device, target, now_ms, jitter, is_refused=is_refused)

    def dial_ended(self, key: bytes, now_ms: int, jitter: float, *, is_refused: bool = False) -> list[Effect]:
        """A dial ended without a link that stays: refused, timed out, handshake failed, or dropped for a better link.

        Args:
            key: the device of the Dial.
            now_ms: monotonic time in milliseconds.
            jitter: random, 0 to 1.
            is_refused: the device did answer, and one of the two sides wants no link now.

        Raises:
            LocalProtocolError: no dial of that device is under way.
        """
        effects: list[Effect] = []
        url = self._end_dial(key)
        target = self._known(key)
        if target and key not in self._linked_at_ms:
            target.put_last(url)
            target.tries_left -= 1
            if target.urls and target.tries_left > 0 and key in self._targets and not is_refused:
                self._due[key] = None
            else:
                target.is_failing, target.is_refused = not is_refused, is_refused
                effects += self._wait(key, target, now_ms, jitter, is_refused=is_refused)
        return effects + self._fill()

    def timer_expired(self, timer: bytes, now_ms: int) -> list[Effect]:
        """The wait is over. One that was cancelled is ignored, and so is the time: an early expiry does no harm."""
        target = self._targets.get(timer)
        if target is None or not target.is_waiting:
            return []
        target.is_waiting = False
        return self._start_round(timer, target) + self._fill()

    def _want(self, key: bytes, urls: Iterable[str]) -> list[Effect]:
        known = self._unwanted.pop(key, None)
        target = self._targets.setdefault(key, known or _Target())
        added_count = target.add(urls)
        if key in self._linked_at_ms:
            return []
        if known and target.urls and key not in self._in_flight and (target.is_refused or not added_count):
            return self._set_timer(key, target)  # it goes on waiting where it left off
        if not added_count:
            return []
        if key in self._in_flight or key in self._due:
            target.tries_left = min(target.tries_left + added_count, len(target.urls) + (key in self._in_flight))
            return []
        # Only the new addresses, so that a device which states new ones all the time does not make us dial all the old ones too.
        target.tries_left = added_count
        self._due[key] = None
        return self._stop_waiting(key, target) + self._fill()

    def _start_round(self, key: bytes, target: _Target) -> list[Effect]:
        """Makes all addresses due, the next one first; if a dial is under way, they follow its end."""
        if not target.urls or key in self._linked_at_ms:
            return []
        target.wait_ends_ms = 0
        target.tries_left = len(target.urls)
        if key in self._in_flight:
            target.tries_left += 1
            return []
        self._due[key] = None
        return self._stop_waiting(key, target)

    def _fill(self) -> list[Effect]:
        """Dials what is due, as far as there is room."""
        effects: list[Effect] = []
        while self._due and len(self._in_flight) < self._in_flight_max:
            key = next(iter(self._due))
            del self._due[key]
            url = self._targets[key].urls[0]
            self._in_flight[key] = url
            effects.append(Dial(key, url))
        return effects

    def _end_dial(self, key: bytes) -> str:
        if key not in self._in_flight:
            raise LocalProtocolError("the end of a dial that is not under way")
        return self._in_flight.pop(key)

    def _known(self, key: bytes) -> _Target | None:
        return self._targets.get(key) or self._unwanted.get(key)

    def _remember(self, key: bytes, target: _Target) -> _Target:
        """Keeps what is known of a device that is not wanted; the longest unwanted fall out."""
        self._unwanted[key] = target
        if len(self._unwanted) > DEVICES_REMEMBERED_MAX:
            del self._unwanted[next(iter(self._unwanted))]
        return target

    def _wait(self, key: bytes, target: _Target, now_ms: int, jitter: float, *, is_refused: bool = False) -> list[Effect]:
        target.failed_rounds += 1
        wait_ms = self._patience.wait_ms(target.failed_rounds, jitter, is_refused=is_refused)
        target.wait_ends_ms = max(target.wait_ends_ms, now_ms + wait_ms)
        return self._set_timer(key, target) if key in self._targets and target.urls else []

    def _set_timer(self, key: bytes, target: _Target) -> list[Effect]:
        target.is_waiting = True
        return [SetTimer(key, target.wait_ends_ms)]

    def _stop_waiting(self, key: bytes, target: _Target) -> list[Effect]:
        if not target.is_waiting:
            return []
        target.is_waiting = False
        return [CancelTimer(key)]
