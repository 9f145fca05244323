"""The device's secrets on disk: one file, mode 0600, outside every database (DESIGN 4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.store.disk import Disk, sync_folder
from peersd_protocol import canonical
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.signing import SEED_BYTES, sha256

FILE_NAME: Final = "device.key"
FILE_BYTES_MAX: Final = 4096
FILE_MODE: Final = 0o600
FORMAT: Final = 1
CHECKSUM_BYTES: Final = 8


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
        content = path.read_bytes()
        os.chmod(path, FILE_MODE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable() from error
    packed, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if sha256(packed)[:CHECKSUM_BYTES] != checksum:
        raise _unusable()  # another key would make this another device, which no group knows
    try:
        version, name, signing, noise, sealing = canonical.decode(packed, bytes_max=FILE_BYTES_MAX)
        if version != FORMAT or not isinstance(name, str):
            raise ValueError("another format")
        secrets = [secret for secret in (signing, noise, sealing) if isinstance(secret, bytes) and len(secret) == SEED_BYTES]
        return Device(name, DeviceKeys(*secrets))
    except (RemoteProtocolError, ValueError, TypeError) as error:
        raise _unusable() from error


def _unusable() -> PeersdError:
    return PeersdError("store_corrupt", f"{FILE_NAME} cannot be used.", hint="Restore it from a backup of the data folder.")


def create_device(data_dir: Path, name: str, entropy: Callable[[int], bytes], disk: Disk) -> Device:
    """Makes new keys and writes them; the file is whole and on disk when this returns."""
    secrets = [entropy(SEED_BYTES) for _ in range(3)]
    device = Device(name, DeviceKeys(*secrets))
    packed = canonical.encode([FORMAT, name, *secrets])
    write_durably(data_dir / FILE_NAME, packed + sha256(packed)[:CHECKSUM_BYTES], disk)
    return device


def write_durably(path: Path, content: bytes, disk: Disk) -> None:
    """Replaces a file by one of mode 0600 with this content: after a crash there is the old or the new one, never half of it."""
    temporary = path.with_name(path.name + ".new")
    descriptor = disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        disk.write(descriptor, content)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    reach(CrashPoint.KEY_WRITTEN)
    disk.replace(temporary, path)
    sync_folder(disk, path.parent)
