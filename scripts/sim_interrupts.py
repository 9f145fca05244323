"""How every form of scripts/sim is interrupted: by SIGINT or SIGTERM it ends what it started and says how far it came."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

import trio

from peersd.testing.simulator.simulation import FOLDER_VARIABLE, memory_folder

STATUS: Final = 130
"""The exit status of a run that was interrupted: what shells give to one that ended by SIGINT."""


@dataclass
class Interruption:
    """Whether a run was interrupted.

    Attributes:
        has_come: since the run began.
    """

    has_come: bool = False

    def end(self, status: int, told: str) -> int:
        """Prints a run's last line.

        Args:
            status: to exit with if nothing interrupted it.
            told: how far it came, and what failed.

        Returns:
            The exit status.
        """
        print(f"interrupted: {told}" if self.has_come else told, flush=True)
        return STATUS if self.has_come else status


@contextmanager
def open_run() -> Generator[Interruption]:
    """A run that may be interrupted: its body is left then, by KeyboardInterrupt, and what follows the context goes on.

    Simulations keep their files in one folder, those of other processes as well, which is gone with the context. So such a
    process can be ended at any moment, by SIGKILL.
    """
    interruption = Interruption()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        parent = os.environ.get(FOLDER_VARIABLE, "")
        with tempfile.TemporaryDirectory(prefix="peersd-sim-", dir=parent or memory_folder()) as folder:
            os.environ[FOLDER_VARIABLE] = folder
            try:
                yield interruption
            finally:
                os.environ[FOLDER_VARIABLE] = parent
    except BaseException as error:
        if not _is_interrupt(error):
            raise
        interruption.has_come = True
    finally:
        signal.signal(signal.SIGTERM, before)


async def cancel_if_interrupted(call: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Runs something under trio until it ends or an interrupt cancels it, so that it lets go of all it holds in good order.

    An exception that is raised wherever the program stands may leave generators behind that nobody closes any more.

    Args:
        call: to run.
        arguments: it is called with.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came.
        ExceptionGroup: of what it raised.
    """
    has_come = False

    async def watch(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        nonlocal has_come
        await anext(signals)
        has_come = True
        scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, signals, nursery.cancel_scope)
                await call(*arguments)
                nursery.cancel_scope.cancel()
        except* Exception:
            if not has_come:  # else it was cancelled in the middle of its work, and may say so
                raise
    if has_come:
        raise KeyboardInterrupt


def ignore_interrupts() -> None:
    """Lets a process of a pool go on whatever the terminal says: who started it ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_processes() -> None:
    """Ends the processes of all pools at once."""
    for process in multiprocessing.active_children():
        process.kill()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # By way of SIGINT, which trio takes where it can stand an exception.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what is to run in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def _is_interrupt(error: BaseException) -> bool:
    """Whether it is KeyboardInterrupt, which trio's nurseries put into a group with what else they have."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)
