"""PeersdError: what the world or the user did wrong, with a stable code, a hint, and whether a retry helps."""

from __future__ import annotations


class PeersdError(Exception):
    """An error that an application is told about.

    Args:
        code: one of the stable codes of the operations page, such as `group_not_found`.
        message: what happened, one sentence.
        hint: what to do about it, one sentence.
        retry: whether the same call may succeed later.
        extra: further keys of the error's data (such as `role_needed`).
    """

    def __init__(self, code: str, message: str, *, hint: str = "", retry: bool = False, **extra: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retry = retry
        self.extra = extra
