"""Telling systemd (Type=notify) how far the daemon is. Source: sd_notify(3), section Description."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send a state such as `READY=1` to the service manager; nothing happens where there is none.

    A manager that does not listen is no reason to fail, so errors are ignored.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        # Linux's abstract sockets: a path that begins with a NUL.
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as sender:
            sender.connect(address)
            sender.sendall(state.encode("ascii"))
    except OSError:
        return
