"""The Unix socket of the API: its folder, its modes, whose process is at the other end, what became of a former daemon's."""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from peersd.errors import PeersdError

_log = logging.getLogger("peersd.api")

PATH_BYTES_MAX: Final = 103 if sys.platform == "darwin" else 107
"""`sun_path` without its final NUL: 104 bytes on macOS, 108 on Linux."""

BACKLOG: Final = 128
"""Connections that the kernel keeps until they are accepted (Linux's old SOMAXCONN)."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A listening socket, its path and the inode of its file."""

    socket: socket.socket
    path: Path
    inode: int

    def close(self) -> None:
        """Stop listening; remove the file if it is still this socket's, not a successor's."""
        self.socket.close()
        try:
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()
        except FileNotFoundError:
            pass


def listen_on(path: Path) -> Listening:
    """A listening socket at `path`, mode 0600; a dead daemon's file there is replaced. Call with umask 0077.

    Raises:
        PeersdError: `socket_in_use` when a living daemon listens there, `socket_unusable` for a path that is too long,
            is another kind of file, or lies in a folder where others could put a socket of theirs.
    """
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise PeersdError(
            "socket_unusable",
            f"the socket's path is longer than the {PATH_BYTES_MAX} bytes that the system allows: {path}",
            hint="choose a shorter one with --socket or PEERSD_SOCKET",
        )
    _prepare_folder(path.parent)
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        # The umask has made it so already; said again for a caller with another one.
        path.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _unusable(path, error.strerror or str(error)) from error
    return Listening(listener, path, path.lstat().st_ino)


def caller_uid(connection: trio.socket.SocketType) -> int:
    """The effective user id of the process at the other end, as the kernel recorded it when it connected.

    Raises:
        OSError: the connection is gone, or the system has no such call.
    """
    if sys.platform == "darwin":
        # struct xucred { u_int cr_version; uid_t cr_uid; short cr_ngroups; gid_t cr_groups[16]; }, SOL_LOCAL 0, LOCAL_PEERCRED 1.
        credentials = connection.getsockopt(0, 1, 76)
        _version, uid = struct.unpack_from("II", credentials)
        return int(uid)
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    mode = stat.S_IMODE(status.st_mode)
    writable_by_others = mode & 0o022 and not mode & stat.S_ISVTX
    if status.st_uid not in (os.getuid(), 0) or writable_by_others:
        raise _unusable(folder, "others can write to its folder")
    if mode & 0o077:
        # A folder that somebody chose, such as /tmp: its mode is not ours to change. The socket is 0600 and checks its caller.
        _log.warning("socket folder is open to others", extra={"fields": {"folder": str(folder), "mode": f"{mode:04o}"}})


def _remove_dead(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise _unusable(path, "another kind of file is there")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not blocking: a living daemon with a full backlog answers EAGAIN, and is living all the same.
        probe.setblocking(False)
        probe.connect(os.fspath(path))
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
        return
    except OSError as error:
        if not isinstance(error, BlockingIOError):
            raise _unusable(path, error.strerror or str(error)) from error
    finally:
        probe.close()
    raise PeersdError(
        "socket_in_use",
        f"another daemon listens at {path}",
        hint="stop it (peers stop), or choose another socket with --socket",
    )


def _unusable(path: Path, reason: str) -> PeersdError:
    return PeersdError(
        "socket_unusable", f"cannot listen at {path}: {reason}", hint="choose another socket with --socket or PEERSD_SOCKET"
    )
