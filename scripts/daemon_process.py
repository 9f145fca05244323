"""Daemons that end with the script that started them, however that ends."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from peersd.testing.processes import DaemonProcess


@asynccontextmanager
async def open_daemon(place: Path, name: str) -> AsyncGenerator[DaemonProcess]:
    """A running daemon in the folder `place/name` on loopback, on a port that it keeps over restarts.

    The test kit's own `open_daemon` shows the logs whatever ends it; here Ctrl-C is no failure.
    """
    daemon = DaemonProcess(place / name, ["ws://127.0.0.1:0"])
    try:
        await daemon.start()
        yield daemon
    finally:
        with trio.CancelScope(shield=True):
            await daemon.close()


def run_until_interrupted(main: Callable[[], Awaitable[None]]) -> bool:
    """Runs `main` under trio; False if Ctrl-C, SIGTERM or a closed terminal ended it, after everything that it opened was closed.

    A signal cancels instead of raising KeyboardInterrupt wherever the program happens to be, so no daemon is left behind.
    """
    interrupted = False

    async def run() -> None:
        nonlocal interrupted
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def cancel_on_signal() -> None:
                    nonlocal interrupted
                    async for _ in signals:
                        interrupted = True
                        scope.cancel()

                nursery.start_soon(cancel_on_signal)
                # In a scope of its own: a second signal while things close, as timeout(1) sends, must find it there.
                with scope:
                    await main()
                nursery.cancel_scope.cancel()

    trio.run(run)
    return not interrupted
