"""The lock on the data folder: one daemon a folder, however it was started."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from peersd.errors import PeersdError

LOCK_NAME: Final = "lock"


@contextmanager
def lock_data_folder(folder: Path) -> Generator[None]:
    """Make the folder where it is missing, mode 0700, and hold its lock while the context lasts.

    The kernel lets go of the lock with the process, however that ends; the file stays and means nothing by itself.

    Raises:
        PeersdError: `data_in_use` when another process holds it, `data_unusable` when the folder is not this user's or cannot
            be made or locked.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise _unusable(folder, "it is no folder of this user's")
        if status.st_mode & 0o077:
            folder.chmod(0o700)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    try:
        _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        raise PeersdError(
            "data_in_use",
            f"another daemon (process {holder or 'unknown'}) uses {folder}",
            hint="stop it (peers stop), or choose another folder with --data",
        ) from None
    except OSError as error:
        raise _unusable(folder, f"it cannot be locked: {error.strerror or error}") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)


def _unusable(folder: Path, reason: str) -> PeersdError:
    return PeersdError("data_unusable", f"cannot use {folder}: {reason}", hint="choose another folder with --data")
