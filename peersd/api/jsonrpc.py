"""JSON-RPC 2.0, one object or batch a line: parsing requests, making answers. No I/O.

Source: https://www.jsonrpc.org/specification. Messages of the four protocol errors are the specification's words; what
exactly was wrong stands in `data.detail`, and what to do about it in `data.hint`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from peersd.api.values import encode_json

LINE_BYTES_MAX: Final = 16 * 1024 * 1024
"""One line, its newline not counted (API.md)."""

BATCH_REQUESTS_MAX: Final = 1000
"""Requests in one batch; a batch takes one of its connection's places, so this bounds how long it may (guess)."""

ROWS_A_STEP: Final = 500
"""Rows encoded before others get their turn: 1 to 3 ms of five columns (measured)."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
OUR_ERROR: Final = -32000

RequestId: TypeAlias = str | int | float | None


class RpcError(Exception):
    """An error answer.

    Args:
        number: JSON-RPC's error code.
        message: one sentence.
        data: the `data` of the error; `code` and `hint` are always among its keys.
    """

    def __init__(self, number: int, message: str, data: dict[str, object]) -> None:
        super().__init__(message)
        self.number = number
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `params` is as given: a list, an object, or None when absent; a notification wants no answer."""

    method: str
    params: list[object] | dict[str, object] | None
    id: RequestId
    is_notification: bool


@dataclass(frozen=True, slots=True)
class Invalid:
    """What was no request: it is answered with `error`, under its id where it had a usable one."""

    error: RpcError
    id: RequestId


def parse_error(detail: str) -> RpcError:
    """The answer to a line that is not JSON."""
    hint = "send one JSON object (or batch) a line, in UTF-8"
    return RpcError(PARSE_ERROR, "Parse error", {"code": "parse_error", "detail": detail, "hint": hint})


def invalid_request(detail: str, *, code: str = "invalid_request", hint: str = "") -> RpcError:
    """The answer to JSON that is not a request."""
    hint = hint or 'a request is {"jsonrpc": "2.0", "method": "…", "params": {…}, "id": 1}'
    return RpcError(INVALID_REQUEST, "Invalid Request", {"code": code, "detail": detail, "hint": hint})


def method_not_found(detail: str, hint: str) -> RpcError:
    """The answer to a method that this version does not have."""
    return RpcError(METHOD_NOT_FOUND, "Method not found", {"code": "method_not_found", "detail": detail, "hint": hint})


def invalid_params(detail: str, hint: str = "", *, parameter: str | None = None) -> RpcError:
    """The answer to parameters of a wrong name, type or range."""
    data: dict[str, object] = {"code": "invalid_params", "detail": detail, "hint": hint}
    if parameter is not None:
        data["parameter"] = parameter
    return RpcError(INVALID_PARAMS, f"Invalid params: {detail}", data)


def internal_error() -> RpcError:
    """The answer when our own code failed; the log has the traceback."""
    hint = "the daemon's log says more; please report it"
    return RpcError(INTERNAL_ERROR, "Internal error", {"code": "internal_error", "detail": "a fault of the daemon", "hint": hint})


def line_too_long() -> RpcError:
    """The answer to a line beyond the bound, after which the connection is closed: the next line cannot be found."""
    return invalid_request(
        f"a line is longer than {LINE_BYTES_MAX} bytes", code="too_large", hint="split the work over several requests"
    )


def stopping() -> RpcError:
    """The answer to what the daemon's end interrupts or no longer admits."""
    data: dict[str, object] = {"code": "busy", "hint": "try again once it runs again", "retry": True}
    return RpcError(OUR_ERROR, "the daemon is stopping", data)


def parse_line(line: bytes | bytearray) -> Request | Invalid | list[Request | Invalid]:
    """What one line asks for: a request, a batch (a list, never empty), or why it is neither."""
    try:
        text = line.decode("utf-8")
        if text.startswith("\ufeff"):
            return Invalid(parse_error("a BOM begins the line"), None)
        message = _DECODER.decode(text)
    except UnicodeDecodeError:
        return Invalid(parse_error("the line is not UTF-8"), None)
    except json.JSONDecodeError as error:
        return Invalid(parse_error(f"{error.msg} at character {error.pos}"), None)
    except RecursionError:
        return Invalid(parse_error("nested too deeply"), None)
    except ValueError as error:
        # NaN and infinities, which Python's parser would admit, and integers of thousands of digits.
        return Invalid(parse_error(str(error)), None)
    if not isinstance(message, list):
        return _parse_request(message)
    if not message:
        return Invalid(invalid_request("a batch is empty"), None)
    if len(message) > BATCH_REQUESTS_MAX:
        detail = f"a batch of {len(message)} requests; at most {BATCH_REQUESTS_MAX}"
        return Invalid(invalid_request(detail, code="too_large", hint="split the batch"), None)
    return [_parse_request(item) for item in message]


def encode_result_in_steps(request_id: RequestId, result: object) -> Generator[None, None, bytes]:
    """As `encode_result`, yielding between slices of many rows, so that others are not kept waiting for a long answer."""
    rows = result.get("rows") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(rows, list) or len(rows) <= ROWS_A_STEP:
        return encode_result(request_id, result)
    pieces: list[bytes] = []
    total_bytes = 0
    for start in range(0, len(rows), ROWS_A_STEP):
        yield
        pieces.append(encode_json(rows[start : start + ROWS_A_STEP])[1:-1])
        total_bytes += len(pieces[-1])
        if total_bytes > LINE_BYTES_MAX:
            return _too_large(request_id)
    rest = encode_json({name: value for name, value in result.items() if name != "rows"})
    whole = rest[:-1] + (b"," if len(rest) > 2 else b"") + b'"rows":[' + b",".join(pieces) + b"]}"
    return _frame_result(request_id, whole)


def encode_result(request_id: RequestId, result: object) -> bytes:
    """An answer without its newline; an error answer instead where the line would pass the bound."""
    return _frame_result(request_id, encode_json(result))


def _frame_result(request_id: RequestId, encoded: bytes) -> bytes:
    line = b'{"jsonrpc":"2.0","result":' + encoded + b',"id":' + encode_json(request_id) + b"}"
    return line if len(line) <= LINE_BYTES_MAX else _too_large(request_id)


def _too_large(request_id: RequestId) -> bytes:
    hint = "ask for fewer rows (limit) or columns at a time"
    data: dict[str, object] = {"code": "too_large", "hint": hint, "retry": False}
    return encode_error(request_id, RpcError(OUR_ERROR, f"the answer is longer than {LINE_BYTES_MAX} bytes", data))


def encode_error(request_id: RequestId, error: RpcError) -> bytes:
    """An error answer without its newline."""
    body = {"code": error.number, "message": error.message, "data": error.data}
    return encode_json({"jsonrpc": "2.0", "error": body, "id": request_id})


def encode_notification(method: str, params: Mapping[str, object]) -> bytes:
    """What the daemon says unasked, without its newline."""
    return encode_json({"jsonrpc": "2.0", "method": method, "params": params})


def encode_batch(answers: list[bytes]) -> bytes | None:
    """One line's worth of answers, or None when nothing is to be answered (a batch of notifications)."""
    if not answers:
        return None
    encoded = b"[" + b",".join(answers) + b"]"
    if len(encoded) > LINE_BYTES_MAX:
        return encode_error(
            None, invalid_request("the batch's answers pass the bound of a line", code="too_large", hint="split it")
        )
    return encoded


def _parse_request(message: object) -> Request | Invalid:
    if not isinstance(message, dict):
        return Invalid(invalid_request("not an object"), None)
    request_id = message.get("id")
    if not _is_usable_id(request_id):
        return Invalid(invalid_request("id must be a string, a number or null"), None)
    if message.get("jsonrpc") != "2.0":
        return Invalid(invalid_request('jsonrpc must be "2.0"'), request_id)
    method = message.get("method")
    if not isinstance(method, str):
        return Invalid(invalid_request("method must be a string"), request_id)
    params = message.get("params")
    if "params" in message and not isinstance(params, (list, dict)):
        return Invalid(invalid_request("params must be an object or an array"), request_id)
    return Request(method, params, request_id, "id" not in message)


def _is_usable_id(request_id: object) -> bool:
    if request_id is None or isinstance(request_id, str):
        return True
    if isinstance(request_id, bool) or not isinstance(request_id, (int, float)):
        return False
    return isinstance(request_id, int) or math.isfinite(request_id)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
"""Kept: json.loads makes one for each call that has an option."""
