"""What runs beside the body of a context: ended with it, and no business of whoever wrote the body."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_beside() -> AsyncGenerator[trio.Nursery]:
    """A nursery that is cancelled at its end.

    Raises:
        Exception: what the body raised, or what runs beside it, as it is: who expects an error of the body's looks for no group.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
