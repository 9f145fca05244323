"""One connection of the API: its lines become requests, many under way at once, their answers sent in any order."""

from __future__ import annotations

import logging
import math
import os
import select
from collections.abc import Generator
from contextlib import contextmanager
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


@contextmanager
def guarded(what: str, method: str = "") -> Generator[None]:
    """The guard of the API: a fault of ours is logged with its traceback and ends what it guards, never the daemon."""
    try:
        yield
    except Exception:  # noqa: BLE001  one of the three places
        _log.exception(f"{what} failed", extra={"fields": {"method": method[:64]} if method else {}})


class Connection:
    """One connection.

    Args:
        stream: the accepted socket; closed by its owner.
        dispatcher: answers the requests.
    """

    def __init__(self, stream: trio.SocketStream, dispatcher: Dispatcher) -> None:
        self._stream = stream
        self._dispatcher = dispatcher
        self._outbox = Outbox()
        self._subscriptions = Subscriptions(self._send_notification)
        self._places = trio.Semaphore(IN_FLIGHT_MAX)
        self._everything = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._finishing: set[trio.CancelScope] = set()
        self._interruptible: set[trio.CancelScope] = set()
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
                    with self._reading:
                        await self._read_requests(requests)
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
        self._reading.cancel()
        self._subscriptions.end_all()

    def interrupt(self) -> None:
        """End what changes nothing (a wait, a long query) with an error answer; what changes something goes on."""
        for scope in self._interruptible:
            scope.cancel()

    def abort(self) -> None:
        """Cancel everything, also what would otherwise finish."""
        self._everything.cancel()
        for scope in self._finishing:
            scope.shield = False

    async def _read_requests(self, requests: trio.Nursery) -> None:
        reader = LineReader(self._stream, LINE_BYTES_MAX)
        while True:
            # A checkpoint even where a place is free, which lets the request before run to its first wait: requests begin in
            # the order of their lines, while a nursery starts what is ready at once in random order.
            await self._places.acquire()
            parsed: Request | Invalid | list[Request | Invalid]
            try:
                line = await reader.next_line()
                if line is None:
                    self._input_ended.set()
                    return
                parsed = parse_line(line)
            except LineTooLong:
                parsed = Invalid(line_too_long(), None)
            except trio.BrokenResourceError:
                self._everything.cancel()
                return
            requests.start_soon(self._answer, parsed, requests)

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
                await self._outbox.put(answer + b"\n")
        finally:
            # Also where the answer was cancelled: then these are too, and close their events.
            for subscription in caller.opened:
                requests.start_soon(self._subscriptions.forward, subscription)
            self._places.release()

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
        changes = self._dispatcher.changes(request.method)
        kept = self._finishing if changes else self._interruptible
        with trio.CancelScope(shield=changes) as scope:
            kept.add(scope)
            try:
                return await self._dispatcher.call(request.method, request.params, caller)
            finally:
                kept.discard(scope)
        raise stopping()

    async def _send_notification(self, line: bytes) -> None:
        await self._outbox.put(line + b"\n")

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
