"""A connected socket, local or a link's: waited for only when there is nothing to be had, or no room. And who waits for lines."""

from __future__ import annotations

import os

import trio


class Parked:
    """A place for one task that waits until it is woken. Events instead would take 1 us more of a call's 75 (measured)."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    @property
    def is_taken(self) -> bool:
        """Whether a task waits."""
        return self._task is not None

    async def wait(self) -> None:
        """Returns when `wake` is called."""
        self._task = trio.lowlevel.current_task()

        def give_up(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)

    def wake(self) -> bool:
        """Has the task go on; whether there was one."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
        return task is not None


class PromptSocket(trio.abc.ReceiveStream):
    """Reads from a socket, and sends what it takes at once.

    Trio's own stream tries first and waits then, and gives others a turn after each piece: a call in vain and a turn of the event
    loop for each line or message of who waits for the next one.

    Args:
        stream: the socket; closed by its owner, who sends by it what found no room.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._fileno = stream.socket.fileno

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, waiting while there is nothing; empty at the end.

        Raises:
            trio.BrokenResourceError: the other end vanished.
            trio.ClosedResourceError: this end was closed.
        """
        while True:
            fd = self._number()
            await trio.lowlevel.wait_readable(fd)
            try:
                return os.read(self._number(), max_bytes or 65_536)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"cannot read: {error}") from error

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Sends as much as there is room for; how many bytes that was. Nobody else may be sending.

        Raises:
            trio.BrokenResourceError: the other end vanished.
            trio.ClosedResourceError: this end was closed.
        """
        try:
            return os.write(self._number(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(f"cannot send: {error}") from error

    def _number(self) -> int:
        """The socket's number, asked for each time: once it is closed, the system gives it to something else."""
        number = self._fileno()
        if number < 0:
            raise trio.ClosedResourceError("this socket was closed")
        return number

    async def aclose(self) -> None:
        """Closes the socket."""
        await self._stream.aclose()
