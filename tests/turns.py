"""Turns of the event loop: whether whoever works leaves some to others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def counted_turns() -> AsyncGenerator[Callable[[], int]]:
    """A task that always has something to do, as long as the context lasts; gives how many turns it has had so far.

    Which of two tasks is first in a turn is chance, so it may lack a few.
    """
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        yield lambda: turns
        nursery.cancel_scope.cancel()
