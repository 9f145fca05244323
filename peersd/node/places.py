"""How many groups' stores are open at once."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

LOOK_S: Final = 0.05
"""Between two looks for a store that could be closed, while one waits for its place (guess)."""


class Sleeper(Protocol):
    """A group's store, which may be closed to make room for another's."""

    @property
    def idle_since_s(self) -> float | None:
        """Since when nothing has needed it; None if it is closed, needed, or about to close."""
        ...

    def sleep(self) -> None:
        """Closes it, unless something needs it by then."""
        ...


class Places:
    """The places for open stores: whoever opens one takes a place first, in the order of asking.

    An open store takes about 0.7 MiB of memory and three or four file handles, and a device may hold a thousand groups. While all
    places are taken, the store that has been idle longest is closed for the next one.

    Args:
        sleepers: all groups' stores.
        open_max: how many stores are open at once, unless more are at work.
        patience_s: so long a store waits for a place. Then it opens beside the others, since all of those are at work.
    """

    def __init__(self, sleepers: Callable[[], Iterable[Sleeper]], open_max: int, patience_s: float) -> None:
        self._sleepers = sleepers
        self._patience_s = patience_s
        self._open_max = open_max
        self._taken = 0
        self._turn = trio.Lock()
        self._given = trio.Event()

    @property
    def is_overfull(self) -> bool:
        """Whether more stores are open than there are places."""
        return self._taken > self._open_max

    async def take(self) -> None:
        """Takes a place; waits for one if all are taken."""
        with trio.move_on_after(self._patience_s):
            async with self._turn:
                while self._taken >= self._open_max:
                    self._close_idlest()
                    with trio.move_on_after(LOOK_S):
                        await self._given.wait()
                self._taken += 1
                return
        self._taken += 1

    def give(self) -> None:
        """Gives a place back: the store is closed."""
        self._taken -= 1
        self._given.set()
        self._given = trio.Event()

    def _close_idlest(self) -> None:
        idle = [(since_s, sleeper) for sleeper in self._sleepers() if (since_s := sleeper.idle_since_s) is not None]
        if idle:
            min(idle, key=lambda one: one[0])[1].sleep()
