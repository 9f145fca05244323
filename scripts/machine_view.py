"""What the operating system and plain SQLite say about running daemons: connections, memory, rows. Nothing here asks peersd."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ESTABLISHED = "01"
"""The state's number in Linux's table."""


class TcpConnection(NamedTuple):
    """An established connection as one process sees it: addresses as `host:port`."""

    local: str
    remote: str


def list_tcp_connections(pid: int) -> list[TcpConnection]:
    """The established TCP connections of one process, from /proc on Linux and from lsof on macOS."""
    if sys.platform.startswith("linux"):
        return _list_from_proc(pid)
    command = ["lsof", "-nP", "-a", "-p", str(pid), "-iTCP", "-sTCP:ESTABLISHED", "-Fn"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [TcpConnection(*line[1:].split("->")) for line in listed.splitlines() if line.startswith("n") and "->" in line]


def _list_from_proc(pid: int) -> list[TcpConnection]:
    inodes: set[str] = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:
            continue  # closed since it was listed
        if found := re.fullmatch(r"socket:\[(\d+)\]", target):
            inodes.add(found[1])
    connections: list[TcpConnection] = []
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        lines = path.read_text(encoding="ascii").splitlines()[1:] if path.exists() else []
        for fields in map(str.split, lines):
            if fields[3] == ESTABLISHED and fields[9] in inodes:
                connections.append(TcpConnection(_format_address(fields[1]), _format_address(fields[2])))
    return connections


def _format_address(text: str) -> str:
    """`0100007F:1CA2` is 127.0.0.1:7330: each 32-bit word is in the machine's byte order."""
    host, port = text.split(":")
    words = [bytes.fromhex(host[at : at + 8]) for at in range(0, len(host), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    name = socket.inet_ntop(socket.AF_INET6, packed)
    return f"{name.removeprefix('::ffff:')}:{int(port, 16)}"


def measure_memory_bytes(pid: int) -> int:
    """Resident memory of a process, by ps."""
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout) * 1024


def measure_peak_memory_bytes(pid: int) -> int:
    """The most resident memory that a process has had; where the system does not tell (not Linux), what it has now."""
    path = Path(f"/proc/{pid}/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", path.read_text("ascii"), re.MULTILINE) if path.exists() else None
    return int(found[1]) * 1024 if found else measure_memory_bytes(pid)


def measure_cpu_s(pid: int) -> float:
    """Seconds of the processor that a process has used so far; ps tells them where there is no /proc."""
    path = Path(f"/proc/{pid}/stat")
    if path.exists():
        # The second field is the program's name in brackets and may hold blanks: the fields after it are counted from its end.
        fields = path.read_text("utf-8", "replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    shown = subprocess.run(["ps", "-o", "cputime=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout.strip()
    return float(sum(float(part) * 60**power for power, part in enumerate(reversed(shown.split(":")))))


def open_read_only(path: str | Path) -> sqlite3.Connection:
    """A read-only connection by the Python's own SQLite: any tool can do this while the daemon runs."""
    return sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, timeout=10)


def count_rows(path: str | Path, table: str) -> int:
    """Rows of a table as they stand in the file; 0 while the file or the table is not there."""
    if not Path(path).exists():
        return 0
    connection = open_read_only(path)
    try:
        return int(connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
    except sqlite3.OperationalError as error:
        if "no such table" in str(error) or "unable to open" in str(error):
            return 0
        raise
    finally:
        connection.close()


def digest_rows(path: str | Path, table: str) -> str:
    """A hash over all rows of a table in the order of their key: equal digests, equal tables."""
    connection = open_read_only(path)
    try:
        digest = hashlib.sha256()
        for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY 1'):
            digest.update(repr(row).encode())
        return digest.hexdigest()[:12]
    finally:
        connection.close()
