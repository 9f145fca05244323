"""A connection to the daemon: requests out, each answer to whom it belongs."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import trio

from peersd.client.errors import NoDaemon, PeersError
from peersd.client.events import EventQueue
from peersd.client.values import decode_json, encode_json
from peersd.prompt_socket import Parked, PromptSocket

LINE_BYTES_MAX: Final = 16 * 1024 * 1024
"""API.md; checked before sending, for a clearer error than the daemon's."""

RECEIVE_BYTES: Final = 256 * 1024

LINES_WAITING_MAX: Final = 64
"""Requests that wait for the socket; as many as the daemon works on at once for one connection."""

CODES: Final = {
    -32700: "parse_error",
    -32600: "invalid_request",
    -32601: "method_not_found",
    -32602: "invalid_params",
    -32603: "internal_error",
}


class _Waiting(Parked):
    """A call that waits for its answer.

    Attributes:
        answer: what came.
    """

    __slots__ = ("answer",)

    def __init__(self) -> None:
        super().__init__()
        self.answer: dict[str, Any] | None = None


class Connection:
    """A connection; `run` works beside the calls.

    Args:
        stream: connected to the daemon; closed by its owner.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = PromptSocket(stream)
        self._last_id = 0
        self._waiting: dict[int, _Waiting] = {}
        self._events: dict[int, EventQueue] = {}
        self._lost: PeersError | None = None
        self._closed = trio.Event()
        # What finds no room at once is sent by a task of its own: a caller that is cancelled would leave half a line behind.
        self._unsent = 0
        self._lines_in, self._lines_out = trio.open_memory_channel[bytes](LINES_WAITING_MAX)

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The result of one call. Others may be under way at the same time; they begin in the order in which they were sent.

        Cancelling stops the waiting, not what the daemon does.

        Raises:
            PeersError: the daemon said no, or the request is longer than a line may be (`too_large`).
            NoDaemon: the connection was or got lost; whether the daemon did it is then unknown.
        """
        self._last_id += 1
        request_id = self._last_id
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": request_id}
        # An unpaired surrogate goes as its JSON escape, and the daemon says what is wrong with it.
        line = encode_json(request).encode("utf-8", "backslashreplace") + b"\n"
        if len(line) > LINE_BYTES_MAX + 1:
            hint = "split it over several calls"
            raise PeersError("too_large", f"a request of {len(line)} bytes", hint, {"code": "too_large", "hint": hint})
        waiting = self._waiting[request_id] = _Waiting()
        try:
            if self._lost is None:
                await self._send_line(line)
                if waiting.answer is None and self._lost is None:
                    await waiting.wait()
        except trio.BrokenResourceError:
            # The sender ended while this call waited for its turn; why stands in `_lost`.
            pass
        finally:
            del self._waiting[request_id]
        if waiting.answer is None:
            raise self._lost or NoDaemon("the connection was closed")
        return _result(waiting.answer)

    async def _send_line(self, line: bytes) -> None:
        """Sends a line at once as far as there is room, and leaves the rest to the sender.

        Raises:
            trio.BrokenResourceError: the sender has ended.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._unsent:
            self._unsent += 1
            try:
                await self._lines_in.send(line)
            except BaseException:
                self._unsent -= 1
                raise
            return
        try:
            rest = line[self._socket.send_now(line) :]
        except trio.BrokenResourceError:
            return  # the receiver sees the end too, after the answers that still lie in the socket
        if rest:
            self._unsent += 1
            self._lines_in.send_nowait(rest)  # there is room, since nothing is unsent

    def events_of(self, subscription: int) -> EventQueue:
        """Where the notifications of a subscription are put, those too that came before this call."""
        queue = self._events.get(subscription)
        if queue is None:
            queue = self._events[subscription] = EventQueue()
            if self._lost is not None:
                queue.end(self._lost)
        return queue

    def forget(self, subscription: int) -> None:
        """The subscription has ended; what was not taken is dropped."""
        self._events.pop(subscription, None)

    async def run(self) -> None:
        """Send and receive until the connection ends; then all who wait get NoDaemon."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_lines)
                await self._receive_answers()
                nursery.cancel_scope.cancel()
        finally:
            self._lose(NoDaemon("the daemon closed the connection", "look into its log, or start it again: peersd run"))
            self._lines_out.close()
            self._closed.set()

    def close(self) -> None:
        """This side is done: who still waits or calls gets NoDaemon. The caller ends `run`."""
        self._lose(NoDaemon("this client is closed", "calls are made while the context of open_client lasts"))

    async def wait_closed(self) -> None:
        """Return once the daemon has closed the connection."""
        await self._closed.wait()

    async def _send_lines(self) -> None:
        async for line in self._lines_out:
            try:
                await self._stream.send_all(line)
            except trio.BrokenResourceError:
                return  # as in `_send_line`
            self._unsent -= 1

    async def _receive_answers(self) -> None:
        buffer = bytearray()
        searched = 0
        try:
            while received := await self._socket.receive_some(RECEIVE_BYTES):
                buffer += received
                while (end := buffer.find(b"\n", searched)) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    searched = 0
                    self._deliver(line)
                searched = len(buffer)
        except trio.BrokenResourceError:
            return

    def _deliver(self, line: bytes) -> None:
        answer = decode_json(line)
        if not isinstance(answer, dict):
            return
        waiting = self._waiting.get(answer.get("id") or 0)
        if waiting is not None:
            waiting.answer = answer
            waiting.wake()
        elif answer.get("id") is None and "error" in answer:
            # Said about the connection as a whole, before it is closed: busy, or another user's daemon.
            self._lose(_error(answer["error"]))
        elif answer.get("method") == "event":
            event = answer["params"]
            self.events_of(event["subscription"]).put(event)

    def _lose(self, reason: PeersError) -> None:
        if self._lost is None:
            self._lost = reason
        for waiting in self._waiting.values():
            waiting.wake()
        for queue in self._events.values():
            queue.end(self._lost)


async def connect(path: Path) -> trio.SocketStream:
    """A stream to the daemon that listens at `path`.

    Raises:
        NoDaemon: none listens, or it belongs to another user.
    """
    start = "start one: peersd run (or choose it with --socket or --data)"
    stream_socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await stream_socket.connect(os.fspath(path))
        uid = _listener_uid(stream_socket)
    except FileNotFoundError:
        stream_socket.close()
        raise NoDaemon(f"no daemon listens at {path}", start) from None
    except OSError as error:
        stream_socket.close()
        raise NoDaemon(f"no daemon listens at {path}: {error.strerror or error}", start) from error
    except BaseException:
        stream_socket.close()
        raise
    if uid not in (os.geteuid(), 0):
        # In a folder that all may write to, somebody else could have put a socket there to collect what we send.
        stream_socket.close()
        raise NoDaemon(f"the daemon at {path} belongs to another user", "choose yours with --socket or --data")
    return trio.SocketStream(stream_socket)


def _listener_uid(connection: trio.socket.SocketType) -> int:
    if sys.platform == "darwin":
        # struct xucred { u_int cr_version; uid_t cr_uid; … }, SOL_LOCAL 0, LOCAL_PEERCRED 1.
        _version, uid = struct.unpack_from("II", connection.getsockopt(0, 1, 76))
        return int(uid)
    _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _result(answer: Mapping[str, Any]) -> Any:
    if "error" in answer:
        raise _error(answer["error"])
    return answer.get("result")


def _error(error: Mapping[str, Any]) -> PeersError:
    data = error.get("data")
    if not isinstance(data, dict):
        data = {}
    number = error.get("code")
    code = data.get("code") or CODES.get(number if isinstance(number, int) else 0, "error")
    message = str(error.get("message", ""))
    detail = data.get("detail")
    if isinstance(detail, str) and detail and detail not in message:
        message = f"{message}: {detail}"
    return PeersError(str(code), message, str(data.get("hint") or ""), data)
