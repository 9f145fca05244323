"""One connection of the API: its lines become requests, many under way at once, their answers sent in any order."""

from __future__ import annotations

import logging
import math
import os
import select
from types import TracebackType
from typing import Final, Protocol

import trio

from peersd.api.jsonrpc import (
    LINE_BYTES_MAX,
    OUR_ERROR,
    Invalid,
    Request,
    RequestId,
    RpcError,
    encode_batch,
    encode_error,
    encode_result_in_steps,
    internal_error,
    line_too_long,
    parse_line,
    stopping,
)
from peersd.api.line_reader import LineReader, LineTooLong
from peersd.api.outbox import Outbox
from peersd.api.registry import Caller
from peersd.api.subscriptions import RequestCaller, Subscriptions
from peersd.prompt_socket import Parked, PromptSocket

_log = logging.getLogger("peersd.api")

IN_FLIGHT_MAX: Final = 64
"""Requests of one connection under way; further lines wait in the socket (guess: four clients fill a commit batch)."""

SEND_BYTES: Final = 256 * 1024
"""Given to the socket at a time, so that the limit below measures progress and not the length of an answer."""

SEND_STALLED_S: Final = 300.0
"""A client that takes no byte of its answers for so long is cut off (guess: longer than one looks at a debugger)."""

HANG_UP_LOOK_S: Final = 0.5
"""How often a connection whose client sends no more is looked at: has it gone, or does it wait for answers?"""


class Dispatcher(Protocol):
    """What a connection asks about requests; `peersd.api.methods.Methods` is one."""

    def changes(self, method: str) -> bool:
        """Whether a call of this method must finish although its client has gone."""
        ...

    async def call(self, method: str, params: list[object] | dict[str, object] | None, caller: Caller) -> object:
        """The result, or RpcError."""
        ...


class guarded:
    """The guard of the API: a fault of ours is logged with its traceback and ends what it guards, never the daemon.

    Args:
        what: is guarded, for the log.
        method: that is called, if it is a request.
    """

    __slots__ = ("_method", "_what")

    def __init__(self, what: str, method: str = "") -> None:
        self._what = what
        self._method = method

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if not isinstance(error, Exception):  # one of the three places where any is caught
            return False
        fields = {"method": self._method[:64]} if self._method else {}
        _log.error(f"{self._what} failed", exc_info=error, extra={"fields": fields})
        return True


class Connection:
    """One connection.

    Its requests are worked on by tasks that read in turn, IN_FLIGHT_MAX at most: who has read a line gives the turn on and
    answers the line itself. With a task for each request, started by one that reads, a request would wait a turn of the event
    loop before it began, and another one before its answer was sent.

    Args:
        stream: the accepted socket; closed by its owner.
        dispatcher: answers the requests.
    """

    def __init__(self, stream: trio.SocketStream, dispatcher: Dispatcher) -> None:
        self._stream = stream
        self._socket = PromptSocket(stream)
        self._lines = LineReader(self._socket, LINE_BYTES_MAX)
        self._dispatcher = dispatcher
        self._outbox = Outbox()
        self._subscriptions = Subscriptions(self._send_line)
        self._everything = trio.CancelScope()
        self._finishing: set[trio.CancelScope] = set()
        self._interruptible: set[trio.CancelScope] = set()
        self._is_over = False
        """Whether no further line is to be read."""
        self._is_aborted = False
        self._tasks = 0
        self._reading: trio.CancelScope | None = None
        self._is_turn_free = False
        """Whether nobody reads, since all tasks that there may be are answering."""
        self._resting = Parked()
        """The task that waits for the turn; more than one would only be kept for nothing."""
        self._input_ended = trio.Event()

    async def run(self) -> None:
        """Answer requests until the client has sent its last, all are answered and no subscription is left, or it vanished, or
        `abort`.

        Requests that change something are finished in each case but the last.
        """
        with self._everything:
            async with trio.open_nursery() as companions:
                companions.start_soon(self._send_answers)
                companions.start_soon(self._watch_for_hang_up)
                async with trio.open_nursery() as requests:
                    self._tasks += 1
                    await self._take_turns(requests)
                await self._outbox.wait_sent()
                companions.cancel_scope.cancel()

    async def refuse(self, error: RpcError) -> None:
        """Send one error and nothing else."""
        with trio.move_on_after(HANG_UP_LOOK_S):
            try:
                await self._stream.send_all(encode_error(None, error) + b"\n")
            except trio.BrokenResourceError:
                return

    def stop_reading(self) -> None:
        """Begin no further request, and end the subscriptions; what is under way is answered."""
        self._end_reading()
        self._subscriptions.end_all()

    def interrupt(self) -> None:
        """End what changes nothing (a wait, a long query) with an error answer; what changes something goes on."""
        for scope in self._interruptible:
            scope.cancel()

    def abort(self) -> None:
        """Cancel everything, also what would otherwise finish."""
        self._is_aborted = True
        self._everything.cancel()
        for scope in self._finishing:
            scope.shield = False

    def _end_reading(self) -> None:
        self._is_over = True
        if self._reading is not None:
            self._reading.cancel()
        self._resting.wake()

    async def _take_turns(self, requests: trio.Nursery) -> None:
        """Reads a line, gives the turn on, answers the line, and so on; whoever begins has the turn."""
        try:
            while not self._is_over:
                parsed = None
                try:
                    with trio.CancelScope() as self._reading:
                        parsed = await self._read_line()
                finally:
                    self._reading = None
                if parsed is None:
                    self._is_over = True
                    self._resting.wake()
                    return
                self._give_turn(requests)
                await self._answer(parsed, requests)
                if self._is_turn_free:
                    self._is_turn_free = False
                elif not (self._resting.is_taken or self._is_over):
                    await self._resting.wait()
                else:
                    return
        finally:
            self._tasks -= 1

    def _give_turn(self, requests: trio.Nursery) -> None:
        if self._resting.wake():
            return
        if self._tasks < IN_FLIGHT_MAX:
            self._tasks += 1
            requests.start_soon(self._take_turns, requests)
        else:
            self._is_turn_free = True

    async def _read_line(self) -> Request | Invalid | list[Request | Invalid] | None:
        """The next line, parsed; None if there will be no more."""
        try:
            line = await self._lines.next_line()
        except LineTooLong:
            return Invalid(line_too_long(), None)
        except trio.BrokenResourceError:
            self._everything.cancel()
            return None
        if line is None:
            self._input_ended.set()
            return None
        return parse_line(line)

    async def _answer(self, parsed: Request | Invalid | list[Request | Invalid], requests: trio.Nursery) -> None:
        caller = RequestCaller(self._subscriptions)
        try:
            if isinstance(parsed, list):
                # One after another: who sends a batch expects its CREATE TABLE before its INSERT.
                answers = [await self._answer_one(one, caller) for one in parsed]
                answer = encode_batch([one for one in answers if one is not None])
            else:
                answer = await self._answer_one(parsed, caller)
            if answer is not None:
                await self._send_line(answer)
        finally:
            # Also where the answer was cancelled: then these are too, and close their events.
            for subscription in caller.opened:
                requests.start_soon(self._subscriptions.forward, subscription)

    async def _answer_one(self, request: Request | Invalid, caller: RequestCaller) -> bytes | None:
        if isinstance(request, Invalid):
            return encode_error(request.id, request.error)
        answer = None
        with guarded("request", request.method):
            try:
                answer = await _encode(request.id, await self._call(request, caller))
            except RpcError as error:
                answer = encode_error(request.id, error)
        if request.is_notification:
            return None
        return answer or encode_error(request.id, internal_error())

    async def _call(self, request: Request, caller: RequestCaller) -> object:
        if self._is_aborted:  # what comes next in a batch whose last request could not be cancelled
            raise stopping()
        changes = self._dispatcher.changes(request.method)
        kept = self._finishing if changes else self._interruptible
        with trio.CancelScope(shield=changes) as scope:
            kept.add(scope)
            try:
                return await self._dispatcher.call(request.method, request.params, caller)
            finally:
                kept.discard(scope)
        raise stopping()

    async def _send_line(self, line: bytes) -> None:
        """Sends a line at once where nothing waits before it, as much as the socket takes; the rest waits in the outbox."""
        rest = line + b"\n"
        if self._outbox.is_idle:
            try:
                rest = rest[self._socket.send_now(rest) :]
            except trio.BrokenResourceError:
                self._everything.cancel()
                return
        if rest:
            await self._outbox.put(rest)

    async def _send_answers(self) -> None:
        # One scope whose deadline moves: entering one for each answer costs as much as sending it.
        with trio.CancelScope() as patience:
            try:
                while True:
                    rest = memoryview(await self._outbox.take())
                    while rest:
                        patience.deadline = trio.current_time() + SEND_STALLED_S
                        await self._stream.send_all(rest[:SEND_BYTES])
                        rest = rest[SEND_BYTES:]
                    patience.deadline = math.inf
                    self._outbox.sent()
            except trio.BrokenResourceError:
                self._everything.cancel()
        if patience.cancelled_caught:
            _log.warning("client takes no answers", extra={"fields": {"stalled_s": SEND_STALLED_S}})
            self._everything.cancel()

    async def _watch_for_hang_up(self) -> None:
        # The end of input has two causes that read alike: a client that closed its sending half and waits for answers, and
        # one that has gone, whose queries should end. Only poll() tells them apart, and trio has no way to wait for it.
        await self._input_ended.wait()
        while not _has_hung_up(self._stream.socket):  # noqa: ASYNC110  there is no event to wait for
            await trio.sleep(HANG_UP_LOOK_S)
        self._everything.cancel()


async def _encode(request_id: RequestId, result: object) -> bytes:
    steps = encode_result_in_steps(request_id, result)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)
        await trio.lowlevel.checkpoint()


def caller_refused() -> RpcError:
    """The answer to another user's process."""
    data: dict[str, object] = {"code": "not_allowed", "hint": f"run as the user with id {os.geteuid()}", "retry": False}
    return RpcError(OUR_ERROR, "this daemon belongs to another user", data)


def busy() -> RpcError:
    """The answer to one connection too many."""
    data: dict[str, object] = {"code": "busy", "hint": "close connections that are not used, or try again later", "retry": True}
    return RpcError(OUR_ERROR, "too many connections", data)


def _has_hung_up(connection: trio.socket.SocketType) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _fd, event in poll.poll(0))
