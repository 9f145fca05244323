"""The device's secrets on disk: one file, mode 0600, outside every database (DESIGN 4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peersd.errors import PeersdError
from peersd_protocol import canonical
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.signing import SEED_BYTES

FILE_NAME: Final = "device.key"
FILE_BYTES_MAX: Final = 4096
FORMAT: Final = 1


@dataclass(frozen=True)
class Device:
    """This device: its name and its keys."""

    name: str
    keys: DeviceKeys


def load_device(data_dir: Path) -> Device | None:
    """Reads the device's file, or returns None before `init`.

    Raises:
        PeersdError: `store_corrupt` if the file is there and cannot be used.
    """
    path = data_dir / FILE_NAME
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        version, name, signing, noise, sealing = canonical.decode(packed, bytes_max=FILE_BYTES_MAX)
        if version != FORMAT or not isinstance(name, str):
            raise ValueError("another format")
        secrets = [secret for secret in (signing, noise, sealing) if isinstance(secret, bytes) and len(secret) == SEED_BYTES]
        return Device(name, DeviceKeys(*secrets))
    except (RemoteProtocolError, ValueError, TypeError) as error:
        raise PeersdError(
            "store_corrupt", f"{FILE_NAME} cannot be read", hint="restore the file from a backup of the data folder"
        ) from error


def create_device(data_dir: Path, name: str, entropy: Callable[[int], bytes]) -> Device:
    """Makes new keys and writes them; the file is whole and on disk when this returns."""
    secrets = [entropy(SEED_BYTES) for _ in range(3)]
    device = Device(name, DeviceKeys(*secrets))
    write_durably(data_dir / FILE_NAME, canonical.encode([FORMAT, name, *secrets]))
    return device


def write_durably(path: Path, content: bytes) -> None:
    """Replaces a file by one of mode 0600 with this content: after a crash there is the old or the new one, never half of it."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
