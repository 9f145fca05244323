"""Modified peers: who holds a device's key and does what no daemon would, with the real store and over a real link.

copy = copy_folder(ben, tmp_path / "copy")              # of a daemon that is stopped
with open_forger(copy, group) as forger:
    forged = forger.forge("INSERT INTO note VALUES ('x')")
async with open_rogue(await ada.url(), forger.keys) as rogue:
    channel = await rogue.open(group, [forged.message])
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from peersd.errors import PeersdError
from peersd.net.channels import Channel, ChannelIsClosed, LinkHandle
from peersd.net.runner import run_link
from peersd.node.device_file import load_device
from peersd.node.environment import Network, WebSockets
from peersd.node.summary import digest_of
from peersd.store.authority import Past
from peersd.store.batch import Request
from peersd.store.client_sql import Statement
from peersd.store.log import EntryRow
from peersd.store.mark import Mark, MarkFile, read_machine_id
from peersd.store.store import Store, StoreContext, Write
from peersd.store.writer import Writer
from peersd.testing.nurseries import open_beside
from peersd.testing.processes import HANG_S, DaemonProcess
from peersd_protocol import ids
from peersd_protocol.acts import Body, encode_body
from peersd_protocol.constants import BOOT_ID_BYTES
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.entries import Header, Kind
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import Link
from peersd_protocol.messages import Runs, decode_message, decode_runs, encode_runs, is_beacon_message
from peersd_protocol.roles import Deed
from peersd_protocol.runs import Body as EntryBody
from peersd_protocol.runs import Entry
from peersd_protocol.signing import SEED_BYTES
from peersd_protocol.tokens import DIGEST_BYTES, NO_DIGEST, SIDE_DIALLER, OpenPayload, group_token


def copy_folder(daemon: DaemonProcess, copy: Path) -> Path:
    """Copies the data folder of a daemon that is stopped; the copy."""
    assert daemon.process is None, "the daemon runs"
    shutil.copytree(daemon.data, copy)
    return copy


# --- Entries that no daemon would write -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forged:
    """An entry that no daemon would have written.

    Attributes:
        hash: the entry's.
        epoch: of the log it stands in.
        message: a RUNS message of it.
    """

    hash: bytes
    epoch: bytes
    message: bytes


class _AnyFileMark(MarkFile):
    """A mark that takes whatever file the store is in for the one that it was made for."""

    def __init__(self, path: Path, store_path: Path) -> None:
        super().__init__(path)
        self._store_path = store_path

    def load(self) -> Mark | None:
        mark = super().load()
        return replace(mark, inode=os.stat(self._store_path).st_ino) if mark else None


class _ForgingWriter(Writer):
    """Appends what counts for nothing as well."""

    def _check_own(self, header: Header, body: EntryBody, prev: EntryRow | None, past: Past) -> None:
        pass


class Forger(Store):
    """A device's store of a group that asks nobody for a role. Made by `open_forger`.

    Attributes:
        keys: the device's.
        user: the device's user in this group.
    """

    listeners = 1  # else writes come without their message

    def __init__(self, path: Path, *, backdated: bool) -> None:
        data = path.parent
        device = load_device(data)
        assert device is not None, f"there is no device key in {data}"
        context = StoreContext(device.keys.signing, _long_ago if backdated else _now, os.urandom, read_machine_id())
        super().__init__(path, context, _AnyFileMark(data / "marks" / f"{path.stem}.mark", path), None, is_new=False)
        self._writer = _ForgingWriter(self.log, self._authority, device.keys.signing, self._epochs, context.wall_ms)
        self.keys: DeviceKeys = device.keys
        (self.user,) = (user for user, known in self.state.users.items() if device.keys.device in known.devices)

    def _refusal(self, user: bytes, deed: Deed) -> PeersdError | None:
        return None

    @property
    def digest(self) -> bytes:
        """Of all that is held here."""
        return digest_of(self.group, self.vector())

    def renew_epoch(self) -> None:
        """Goes on in logs that nobody knows of."""
        with self._transaction():
            self._epochs.renew()

    def forge(self, sql: str) -> Forged:
        """Writes rows, which show in this store, and the entry of it."""
        outcomes, commit = self.write([Write(self.user, Request([Statement(sql)], math.inf))])
        for outcome in outcomes:
            if isinstance(outcome, PeersdError):
                raise outcome
        assert commit is not None and commit.message is not None
        return Forged(commit.entries[-1].hash, self.epoch, commit.message)

    def forge_act(self, body: Body) -> Forged:
        """Writes an act, whether it may stand or not; its effects show when the store is opened again."""
        with self._transaction():
            written = self._writer.append(Kind.CONTROL, self.user, encode_body(body))
            self._writer.seal()
            self.log.settle()
        message = encode_runs(self._writer.runs)
        self._writer.reset()
        self._epochs.note_written()
        return Forged(written.header.hash, self.epoch, message)


def _long_ago() -> int:
    return 0  # a stamp is above all that the entry rests on, and no higher than this asks


def _now() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def open_forger(path: Path, *, backdated: bool = False) -> Generator[Forger]:
    """Opens a group's file in the data folder of a daemon that is stopped, or in a copy of one.

    Args:
        path: the file.
        backdated: whether what is written claims to be as old as it can be.
    """
    forger = Forger(path, backdated=backdated)
    try:
        yield forger
    finally:
        forger.close()


# --- Links that speak as they like ----------------------------------------------------------------------------------------------


class Rogue:
    """A link to a daemon by a device's key, without a daemon behind it. Made by `open_rogue`."""

    def __init__(self, handle: LinkHandle) -> None:
        self._handle = handle

    async def open(self, group: str | bytes, messages: Sequence[bytes] = (), digest: bytes | None = None) -> Channel:
        """Opens a channel of a group as a member does.

        Args:
            group: its id, as the local API gives it or as it travels.
            messages: sent before the answer, so that they are there whatever it is.
            digest: of what it claims to hold; None for what nobody holds.
        """
        id_ = ids.parse_id(ids.GROUP, group) if isinstance(group, str) else group
        token = group_token(id_, self._handle.handshake_hash, SIDE_DIALLER)
        return await self._handle.open(OpenPayload(token, digest or os.urandom(DIGEST_BYTES)).encode(), messages)

    async def plead(self, group: str, message: bytes, *, expects_session: bool = True) -> Channel:
        """Opens a channel of a group with a plea, as who is held for no member's device does.

        Raises:
            OpenRefused: as is usual.
        """
        token = group_token(ids.parse_id(ids.GROUP, group), self._handle.handshake_hash, SIDE_DIALLER)
        digest = os.urandom(DIGEST_BYTES) if expects_session else NO_DIGEST
        return await self._handle.open(OpenPayload(token, digest, pleads=True).encode(), [message])


async def receive_all(channel: Channel) -> tuple[list[bytes], CloseCode]:
    """What a daemon says on a channel until it closes it, and the code it closes it with."""
    messages: list[bytes] = []
    with trio.fail_after(HANG_S):
        while True:
            try:
                messages.append(await channel.receive())
            except ChannelIsClosed as closed:
                return messages, closed.code


def entries_of(messages: Sequence[bytes], group: bytes) -> list[Entry]:
    """The entries in the RUNS messages among these."""
    said = [decode_message(message) for message in messages if not is_beacon_message(message)]
    packed = [message for message in said if isinstance(message, Runs)]
    return [entry for runs in packed for run in decode_runs(runs, group) for entry in run.entries]


@asynccontextmanager
async def open_rogue(
    url: str, keys: DeviceKeys, *, network: Network | None = None, entropy: Callable[[int], bytes] = os.urandom
) -> AsyncGenerator[Rogue]:
    """Links to a daemon with these keys, whose own daemon is stopped; what the daemon wants to open is refused.

    Args:
        url: of the daemon.
        keys: a device's.
        network: what it is reached through; the machine's own by default.
        entropy: makes random bytes of a length.

    Raises:
        PeersdError: `unreachable`.
        trio.TooSlowError: it is not linked within HANG_S.
    """
    send, receive = trio.open_memory_channel[LinkHandle](1)

    async def on_up(handle: LinkHandle) -> None:
        handle.release()
        send.send_nowait(handle)
        async for incoming in handle.incoming:
            incoming.refuse()

    handshake = Handshake(Role.DIALLER, keys, boot_id=entropy(BOOT_ID_BYTES), ephemeral_private=entropy(SEED_BYTES))
    async with open_beside() as nursery:

        async def run() -> None:
            await run_link((network or WebSockets()).dial(url, HANG_S), Link(Role.DIALLER, handshake), on_up, direction="out")

        nursery.start_soon(run)
        with trio.fail_after(HANG_S):
            handle = await receive.receive()
        yield Rogue(handle)
