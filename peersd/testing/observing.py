"""What can be seen of a daemon from outside: its connections, memory and handles in the system's tables, its rows in the file."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from peersd.store.database import open_reader
from peersd.store.log import Log, State
from peersd_protocol.entries import Kind

_ESTABLISHED: Final = "01"
"""The state's number in /proc/net/tcp, from include/net/tcp_states.h of Linux."""


def tcp_connections(pid: int) -> list[tuple[int, int]]:
    """The established TCP connections of a process: (local port, remote port) of each. Linux only.

    Args:
        pid: a process of this user's.
    """
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:
            continue  # closed since the folder was listed
        if target.startswith("socket:["):
            own.add(target.removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _ESTABLISHED and fields[9] in own:
                found.append((_port(fields[1]), _port(fields[2])))
    return sorted(found)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def memory_bytes(pid: int) -> int:
    """Resident memory of a process of this user's."""
    if sys.platform == "linux":
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(shown.stdout) * 1024


def peak_memory_bytes() -> int:
    """The most resident memory that this process had at any time."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def processor_s() -> float:
    """Processor time of this process and of all its children that have ended, in seconds."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def file_handles(pid: int) -> int:
    """How many file handles a process of this user's has open: files, sockets, pipes."""
    if sys.platform == "linux":
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    command = ["lsof", "-nP", "-a", "-p", str(pid), "-d", "0-999999", "-Ff"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)  # 1 also when all is well
    return sum(line.startswith("f") for line in listed.stdout.splitlines())


@dataclass(frozen=True)
class FiledEntry:
    """An entry in a store's file: its place in the order in which it came there, its kind of log, hash and state."""

    position: int
    kind: Kind
    hash: bytes
    state: State


def read_entries(path: str | os.PathLike[str]) -> list[FiledEntry]:
    """All entries in a store's file, in the order in which they came there; the daemon may be running or dead."""
    with closing(open_reader(path)) as connection:
        connection.execute("BEGIN")  # one state of the file, whatever the daemon writes meanwhile
        group = connection.execute("SELECT value FROM _peers_meta WHERE key = 'group'").get
        assert isinstance(group, bytes)
        entries = Log(connection, group).all_entries()
        return [FiledEntry(position, entry.header.kind, entry.header.hash, state) for position, entry, state, _ in entries]


def read_file(path: str | os.PathLike[str], sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows that a plain SQLite sees in a store's file, opened read-only and closed again.

    Args:
        path: the file of a group; the daemon may be running or dead.
        sql: one query.
        params: for its `?`.
    """
    with closing(sqlite3.connect(f"file:{os.fspath(path)}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql, params).fetchall()
