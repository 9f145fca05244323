"""What a call may raise: the daemon said no, or there is no daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PeersError(Exception):
    """The daemon answered with an error.

    Args:
        code: a stable word such as `group_not_found`; for errors of the protocol `invalid_params`, `method_not_found` and so on.
        message: what happened, one sentence.
        hint: what to do about it; may be empty.
        data: all that the error carried, `code` and `hint` among it.
    """

    def __init__(self, code: str, message: str, hint: str = "", data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.data: Mapping[str, Any] = data or {}


class NoDaemon(PeersError):
    """Nothing listens at the socket, or the connection broke before the answer; its code is `no_daemon`."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__("no_daemon", message, hint, {"code": "no_daemon", "hint": hint})
