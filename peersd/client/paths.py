"""Where the data folder and the socket are, by flags and environment (API.md, Socket)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "peersd.sock"


def resolve_data_folder(data: str | os.PathLike[str] | None = None) -> Path:
    """`data`, else `$PEERSD_DATA`, else `$XDG_DATA_HOME/peersd`, else `~/.local/share/peersd`.

    An empty variable counts as none.
    """
    chosen = data or os.environ.get("PEERSD_DATA")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "peersd"


def resolve_socket_path(socket: str | os.PathLike[str] | None = None, data: str | os.PathLike[str] | None = None) -> Path:
    """Where to find the daemon: `socket`, else `$PEERSD_SOCKET`, else by a chosen data folder, else the default.

    A daemon that listens elsewhere leaves a symbolic link in its data folder, so that `data` (or `$PEERSD_DATA`) always finds
    the daemon of that folder and never another. The default is `$XDG_RUNTIME_DIR/peersd/peersd.sock`, or the data folder's
    where that variable is not set.
    """
    chosen = socket or os.environ.get("PEERSD_SOCKET")
    if chosen:
        return Path(chosen).expanduser().absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and not (data or os.environ.get("PEERSD_DATA")):
        return Path(runtime) / "peersd" / SOCKET_NAME
    return resolve_data_folder(data) / SOCKET_NAME
