"""Named places where a test may have the process end as if it were killed: wherever a step to the disk is half done.

    PEERSD_CRASH_AT=batch_committed:3 peersd run …

ends that daemon by SIGKILL when it reaches `batch_committed` for the third time. Unless armed, a place costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
from enum import StrEnum
from typing import Final

VARIABLE: Final = "PEERSD_CRASH_AT"
"""The environment variable that arms one: `NAME` or `NAME:COUNT`."""

LOGGED: Final = "crash_point_reached"
"""What the process says last, before the name."""


class CrashPoint(StrEnum):
    """A place; its comment says what is on disk there, and what is not (peersd.testing.crash_cases: how each is reached)."""

    # Files, as they come to be.
    FILE_CREATED = "file_created"  # a new SQLite file, empty
    STORE_CREATED = "store_created"  # a group's tables, and no entry yet
    STORE_FILLED = "store_filled"  # what the group begins with
    # A client's write.
    BATCH_RECORDED = "batch_recorded"  # rows and entries, before COMMIT
    LOG_SEALED = "log_sealed"  # the same, and many entries that had rows are a segment, before COMMIT
    BATCH_COMMITTED = "batch_committed"  # committed; nobody knows
    BATCH_FENCED = "batch_fenced"  # the mark too; clients know, no session does
    BATCH_TOLD = "batch_told"  # sessions know
    # Acts, and the daemon's own writes.
    ACT_RECORDED = "act_recorded"  # an act and what follows from it, before COMMIT
    ACT_COMMITTED = "act_committed"  # committed; nobody knows
    ACT_TOLD = "act_told"  # sessions know; who asked for it does not
    OWN_RECORDED = "own_recorded"  # a row of the registry of groups, before COMMIT
    OWN_COMMITTED = "own_committed"  # committed; nobody knows
    TABLES_REBUILT = "tables_rebuilt"  # all tables made anew from the logs, before COMMIT
    EPOCH_RENEWED = "epoch_renewed"  # a new epoch, before COMMIT
    # What others sent.
    INTAKE_APPLIED = "intake_applied"  # a message's entries and rows, before COMMIT
    INTAKE_COMMITTED = "intake_committed"  # committed; nobody knows
    INTAKE_FENCED = "intake_fenced"  # committed, ready to be passed on; no session knows
    INTAKE_TOLD = "intake_told"  # sessions know
    # The mark.
    MARK_DUE = "mark_due"  # own entries are committed, the mark is behind
    MARK_OPENED = "mark_opened"  # a mark's file, perhaps empty
    MARK_WRITTEN = "mark_written"  # written, before fsync
    MARK_SAVED = "mark_saved"  # on disk; nothing was told
    # Opening and closing a store.
    SUMMARY_CLEARED = "summary_cleared"  # node.db no longer vouches for the file, which is not open yet
    STORE_FENCED = "store_fenced"  # before SQLite's last checkpoint
    STORE_CLOSED = "store_closed"  # the file is whole; node.db does not know
    SUMMARY_SAVED = "summary_saved"  # node.db knows
    # node.db.
    LOCAL_RECORDED = "local_recorded"  # before COMMIT
    LOCAL_COMMITTED = "local_committed"  # committed
    # The device and its users.
    KEY_WRITTEN = "key_written"  # the key's file under its temporary name
    KEY_SAVED = "key_saved"  # a key without a user
    USER_CREATED = "user_created"  # a personal group without its registry
    USER_REGISTERED = "user_registered"  # a user who was never told the recovery phrase
    # Groups: made, joined, left, forgotten.
    GROUP_CREATED = "group_created"  # a group's file with its genesis, unregistered
    JOIN_BEGUN = "join_begun"  # an empty file for a group to join, unregistered
    JOIN_REDEEMED = "join_redeemed"  # a member of a group that is not registered
    GROUP_REGISTERED = "group_registered"  # registered, not made the active one
    ADMISSION_BEGUN = "admission_begun"  # the joining user's identity, before the act that admits
    LEAVE_NOTED = "leave_noted"  # that others are to be told of a leave, which has not happened
    LEAVE_WRITTEN = "leave_written"  # the act of leaving; the registry does not know
    GROUP_UNREGISTERED = "group_unregistered"  # a forgotten group's file
    GROUP_DROPPED = "group_dropped"  # the same, after node.db has forgotten the group
    GROUP_DELETED = "group_deleted"  # nothing is left of it


_armed: CrashPoint | None = None
_left = 0
_lock = threading.Lock()  # stores reach their places in threads


def arm(text: str) -> None:
    """Have this process end itself at a place.

    Args:
        text: `NAME` or `NAME:COUNT`: when the place is reached for that many times, 1 if not given. Empty: at none.

    Raises:
        ValueError: there is no such place, or no such count.
    """
    global _armed, _left
    if not text:
        _armed = None
        return
    name, colon, count = text.partition(":")
    if name not in set(CrashPoint):
        raise ValueError(f"{VARIABLE}: there is no crash point {name!r}; there are {', '.join(CrashPoint)}")
    if colon and not (count.isascii() and count.isdigit() and int(count)):
        raise ValueError(f"{VARIABLE}: {count!r} is no count; {name}:1 is the first time")
    _armed, _left = CrashPoint(name), int(count or 1)


def reach(point: CrashPoint) -> None:
    """A place is reached; does not return if it is the armed one and its count is full."""
    if point is _armed:
        _count_down(point)


def _count_down(point: CrashPoint) -> None:
    global _left
    with _lock:
        _left -= 1
        if _left > 0:
            return
        # Past the log and its locks, which a thread may hold that will never run again.
        os.write(2, f"{LOGGED} {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
