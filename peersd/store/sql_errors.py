"""What SQLite raises, as the errors that applications see (API.md, Errors)."""

from __future__ import annotations

import errno
from typing import Final

import apsw

from peersd.errors import PeersdError

SQLITE_FAILURES: Final = (apsw.Error, ValueError, TypeError, KeyError, OverflowError)
"""What running a client's statement can raise for the statement's or its params' fault (UnicodeError is a ValueError)."""


CORRUPT_HINT = "Stop the daemon, move the file aside, start it and join the group again; or restore the file from a backup."


def sql_refused(message: str, hint: str) -> PeersdError:
    """A statement that the sandbox does not admit."""
    return PeersdError("sql_refused", message, hint=hint)


def schema_refused(message: str, remedy: str) -> PeersdError:
    """A schema statement outside of what groups can share, with what to write instead."""
    return PeersdError("schema_refused", message, hint=remedy)


def sql_error(message: str, hint: str) -> PeersdError:
    """A statement that SQLite itself, or the rules for values, refuse."""
    return PeersdError("sql_error", message, hint=hint)


def convert_sqlite_error(error: Exception) -> PeersdError:
    """The application's view of what `execute` raised; chain it with `from`.

    Args:
        error: an apsw.Error, or one of the errors APSW raises for parameters (TypeError, ValueError, KeyError, OverflowError,
            UnicodeError) and for text in the store that is not UTF-8.
    """
    if isinstance(error, apsw.FullError):
        return PeersdError("store_full", f"The disk is full: {error}", hint="Free some space, then send it again.", retry=True)
    if isinstance(error, apsw.IOError):
        return PeersdError(
            "store_full", f"The disk cannot be written: {error}", hint="Look after the disk, then send it again.", retry=True
        )
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return PeersdError("store_corrupt", f"The group's file is damaged: {error}", hint=CORRUPT_HINT)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return PeersdError(
            "store_full", f"The disk cannot be written: {error}", hint="Free some space, then send it again.", retry=True
        )
    if isinstance(error, (apsw.CantOpenError, OSError)):
        return PeersdError(
            "busy", f"The file cannot be opened: {error}", hint="Look after its folder and the limit of open files.", retry=True
        )
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return PeersdError("busy", f"The group's file is locked: {error}", hint="Send it again in a moment.", retry=True)
    if isinstance(error, apsw.TooBigError):
        return PeersdError("too_large", f"{error}", hint="A value, or a statement's text, is above the limit: split it.")
    if isinstance(error, apsw.NoMemError):
        return PeersdError("too_large", "The statement needs too much memory.", hint="Split it into smaller steps.")
    if isinstance(error, apsw.InterruptError):
        return PeersdError(
            "timeout", "The statement was stopped.", hint="Allow it more time with timeout_s, or split it.", retry=True
        )
    if isinstance(error, apsw.AuthError):
        return sql_refused(f"The statement is not admitted: {error}", "Read and write the group's own tables only.")
    if isinstance(error, apsw.ConstraintError):
        return sql_error(str(error), "The row breaks a rule of its table; see schema.show.")
    if isinstance(error, (apsw.BindingsError, KeyError, TypeError, OverflowError)):
        return sql_error(
            f"Wrong params: {error}", "A list for ?, an object for :name; null, numbers, strings and blobs as values."
        )
    if isinstance(error, UnicodeError):
        return sql_error("Text that is not UTF-8.", "Keep such bytes as a blob, or read them with CAST(… AS BLOB).")
    if isinstance(error, apsw.Error):
        return sql_error(str(error), "Check the statement against schema.show.")
    return sql_error(f"The statement cannot be run: {error}", "Check the statement and its params.")
