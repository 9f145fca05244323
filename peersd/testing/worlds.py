"""Users, devices, logs and acts for scenarios, each in one line, with keys and stamps that are the same at every run.

    world = World()
    alice, bob = world.user("alice"), world.user("bob")
    group = world.group(alice)
    invite = group.invite(alice, Role.WRITER)
    group.admit(alice, invite, bob)
    assert group.state().role_of(bob.id) == Role.WRITER

An author has seen all acts of the group so far unless `seen` says otherwise: take `before = group.acts` and pass `seen=before`
to several acts to have them made apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from peersd_protocol import canonical, hlc
from peersd_protocol.acts import (
    AddDevice,
    Admit,
    Ban,
    Body,
    Cut,
    Cuts,
    DropDevice,
    Genesis,
    Invite,
    Leave,
    Profile,
    Remove,
    RevokeInvite,
    SchemaAct,
    SetRole,
    Settings,
    Unban,
    UserGenesis,
    body_value,
    encode_body,
    kind_of,
)
from peersd_protocol.canonical import Value
from peersd_protocol.devicekeys import DeviceKeys, verify_device_cert
from peersd_protocol.entries import NO_BODY_HASH, Act, Header, Kind, LogKey, body_hash
from peersd_protocol.group_state import GroupState
from peersd_protocol.membership import evaluate
from peersd_protocol.redemption import Redemption, sign_redemption
from peersd_protocol.roles import Role
from peersd_protocol.schema_ops import SchemaOp
from peersd_protocol.signing import SigningKey, sha256
from peersd_protocol.tickets import Ticket

FIRST_MS: Final = 1_700_000_000_000
"""The world's clock starts here; it goes on by 1 ms with every entry."""

RAW_BLOCK: Final = b"\x00"


def secret(*parts: object) -> bytes:
    """32 bytes that depend on the parts alone."""
    return sha256("/".join(["peersd world", *map(str, parts)]).encode())


@dataclass(eq=False)
class Device:
    """A device of a user. Devices of several users are made by giving one `Device`'s keys to `World.add_device`."""

    name: str
    keys: DeviceKeys
    user: User

    @property
    def id(self) -> bytes:
        """The public key."""
        return self.keys.device


@dataclass(eq=False)
class User:
    """A user with its identity acts so far."""

    name: str
    id: bytes = b""
    devices: list[Device] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)

    @property
    def device(self) -> Device:
        """The first device."""
        return self.devices[0]


Author = User | Device


def device_of(author: Author) -> Device:
    """The device that writes: a user's first unless one is named."""
    return author if isinstance(author, Device) else author.device


class World:
    """Where users and groups live.

    Args:
        name: worlds of different names have different keys.
    """

    def __init__(self, name: str = "world") -> None:
        self.name: Final = name
        self.users: Final[list[User]] = []
        self._ms = FIRST_MS
        self._pasts: Final[dict[bytes, frozenset[bytes]]] = {}
        self._tips: Final[dict[tuple[bytes, bytes, Kind, int], Act]] = {}

    # --- Users ---

    def keys(self, name: str) -> DeviceKeys:
        """The keys of the device of that name."""
        return DeviceKeys(*(secret(self.name, name, purpose) for purpose in ("signing", "noise", "sealing")))

    def user(self, name: str, *, keys: DeviceKeys | None = None) -> User:
        """A new user with one device, `<name>-1`."""
        user = User(name)
        device = Device(f"{name}-1", keys or self.keys(f"{name}-1"), user)
        cert = verify_device_cert(device.keys.device_cert(device.name))
        act = self.write(device, UserGenesis(name, secret(self.name, name)[:16], cert), seen=())
        user.id = act.hash
        user.devices.append(device)
        user.acts.append(act)
        self.users.append(user)
        return user

    def add_device(
        self,
        author: Author,
        name: str,
        *,
        seen: Iterable[Act] | None = None,
        keys: DeviceKeys | None = None,
        consent: bytes | None = None,
    ) -> Device:
        """Adds a device to the author's user; `seen` as everywhere, by default all identity acts of that user."""
        user = device_of(author).user
        device = Device(name, keys or self.keys(name), user)
        signature = device.keys.sign_consent(user.id) if consent is None else consent
        self.write_identity(author, AddDevice(verify_device_cert(device.keys.device_cert(name)), signature), seen=seen)
        user.devices.append(device)
        return device

    def rename(self, author: Author, name: str, *, seen: Iterable[Act] | None = None) -> Act:
        """Changes the name of the author's user."""
        return self.write_identity(author, Profile(name), seen=seen)

    def write_identity(self, author: Author, body: Body | Sequence[Value], *, seen: Iterable[Act] | None = None) -> Act:
        """Writes any identity act, or a raw body."""
        device = device_of(author)
        act = self.write(device, body, kind=Kind.IDENTITY, seen=device.user.acts if seen is None else seen)
        device.user.acts.append(act)
        return act

    # --- Groups ---

    def group(self, founder: Author, name: str = "group", *, personal: bool = False) -> Group:
        """A new group."""
        device = device_of(founder)
        act = self.write(device, Genesis(name, secret(self.name, name)[:16], personal), seen=device.user.acts)
        return Group(self, act)

    # --- Entries ---

    def write(
        self,
        device: Device,
        body: Body | Sequence[Value],
        *,
        seen: Iterable[Act],
        group: bytes = b"",
        kind: Kind | None = None,
        epoch: int = 0,
        after: Act | None = None,
    ) -> Act:
        """Writes one entry into a device's log.

        Args:
            device: who writes.
            body: an act, or any raw body; empty for an entry without one.
            seen: what the author has seen besides its own log.
            group: the group's id; empty for identity acts and a genesis.
            kind: needed for raw bodies only.
            epoch: which of the device's logs.
            after: the entry to follow instead of the log's tip: a fork.
        """
        if isinstance(body, list | tuple):
            value, encoded = list(body), canonical.encode(body)
        else:
            value, encoded = body_value(body), encode_body(body)  # type: ignore[arg-type]
            kind = kind_of(body)  # type: ignore[arg-type]
        assert kind is not None
        owner = device.user.id if kind is Kind.IDENTITY else group
        prev = after or self._tips.get((owner, device.id, kind, epoch))
        past = self._past([prev] if prev else [])
        heads = self._heads([act for act in seen if act.hash not in past])
        self._ms += 1
        header = Header(
            group=group,
            kind=kind,
            user=device.user.id,
            device=device.id,
            epoch=prev.header.epoch if prev else secret(self.name, device.name, owner.hex(), kind, epoch)[:16],
            seq=prev.header.seq + 1 if prev else 1,
            prev=prev.hash if prev else b"",
            hlc=hlc.pack(self._ms, 0),
            deps=(),
            control_heads=tuple(sorted(act.hash for act in heads)),
            body_hash=body_hash([sha256(RAW_BLOCK + encoded)]) if value else NO_BODY_HASH,
        )
        act = Act(header, value)
        self._pasts[act.hash] = past | self._past(heads)
        # The first entry of a group or user does not name it in its header: it is its id.
        self._tips[owner or act.hash, device.id, kind, epoch] = act
        return act

    def _past(self, acts: Iterable[Act]) -> frozenset[bytes]:
        past: frozenset[bytes] = frozenset()
        for act in acts:
            past |= self._pasts[act.hash] | {act.hash}
        return past

    def _heads(self, acts: Collection[Act]) -> list[Act]:
        covered: set[bytes] = set()
        for act in acts:
            covered |= self._pasts[act.hash]
        return [act for act in {act.hash: act for act in acts}.values() if act.hash not in covered]


class Group:
    """A group with its control acts so far, in the order they were written."""

    def __init__(self, world: World, genesis: Act) -> None:
        self.world: Final = world
        self.id: Final = genesis.hash
        self.control: Final[list[Act]] = [genesis]
        self._invite_keys: Final[dict[bytes, SigningKey]] = {}

    @property
    def acts(self) -> tuple[Act, ...]:
        """All control acts so far and the identity acts of all users of the world."""
        return (*(act for user in self.world.users for act in user.acts), *self.control)

    def state(self, acts: Iterable[Act] | None = None) -> GroupState:
        """The group evaluated, from some acts or from all."""
        return evaluate(self.id, self.acts if acts is None else acts)

    def write(
        self,
        author: Author,
        body: Body | Sequence[Value],
        *,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
        after: Act | None = None,
    ) -> Act:
        """Writes any control act, or a raw body. The identity of the author is always seen."""
        device = device_of(author)
        known = self.acts if seen is None else (*seen, *device.user.acts)
        act = self.world.write(device, body, kind=Kind.CONTROL, group=self.id, seen=known, epoch=epoch, after=after)
        self.control.append(act)
        return act

    def settings(
        self,
        author: Author,
        *,
        name: str | None = None,
        description: str | None = None,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
    ) -> Act:
        """Changes the group's name or description."""
        return self.write(author, Settings(name=name, description=description), seen=seen, epoch=epoch)

    def invite(
        self,
        author: Author,
        role: Role = Role.WRITER,
        *,
        max_uses: int = 1,
        expires_ms: int = FIRST_MS * 2,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
    ) -> Act:
        """Makes an invite, whose key the group remembers."""
        key = SigningKey(secret(self.world.name, "invite", self.id.hex(), len(self.control)))
        act = self.write(author, Invite(role, expires_ms, max_uses, key.public), seen=seen, epoch=epoch)
        self._invite_keys[act.hash] = key
        return act

    def ticket(self, invite: Act, *, addresses: tuple[str, ...] = ("ws://localhost:7330",)) -> Ticket:
        """The ticket of an invite."""
        return Ticket(self.id, invite.hash, self._invite_keys[invite.hash].seed, addresses, "group")

    def redeem(self, invite: Act, newcomer: Author, *, link: int = 0) -> Redemption:
        """A redemption by the newcomer's device on the link of that number."""
        device = device_of(newcomer)
        return sign_redemption(
            group_id=self.id,
            invite_hash=invite.hash,
            invite_key=self._invite_keys[invite.hash],
            user=device.user.id,
            identity_head_hash=device.user.acts[-1].hash,
            device_key=device.keys.signing,
            handshake_hash=secret("handshake", link),
        )

    def admit(
        self,
        author: Author,
        invite: Act,
        newcomer: Author,
        *,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
        after: Act | None = None,
        link: int = 0,
        change: Callable[[Admit], Admit] = lambda admit: admit,
    ) -> Act:
        """Admits a user by an invite; `change` may spoil the act. The identity of the newcomer is always seen."""
        device = device_of(newcomer)
        admit = change(self.redeem(invite, newcomer, link=link).admit(device.id, secret("handshake", link)))
        known = self.acts if seen is None else (*seen, invite, *device.user.acts)
        return self.write(author, admit, seen=known, epoch=epoch, after=after)

    def join(self, author: Author, newcomer: User, role: Role = Role.WRITER) -> Act:
        """Invites a user to a role and admits them."""
        return self.admit(author, self.invite(author, role), newcomer)

    def revoke(self, author: Author, invite: Act, *, seen: Iterable[Act] | None = None, epoch: int = 0) -> Act:
        """Revokes an invite."""
        return self.write(author, RevokeInvite(invite.hash), seen=seen if seen is None else (*seen, invite), epoch=epoch)

    def schema(self, author: Author, *ops: SchemaOp, seen: Iterable[Act] | None = None) -> Act:
        """Changes the schema."""
        return self.write(author, SchemaAct(ops), seen=seen)

    # --- Acts that take rights ---

    def cuts(
        self,
        user: User,
        *,
        seen: Iterable[Act] | None = None,
        device: Device | None = None,
        data_tips: Iterable[Cut] = (),
        without: Collection[Act] = (),
    ) -> Cuts:
        """Cuts that leave a user all that is known: the tips of the control logs that were seen, and `data_tips`.

        Args:
            user: whose logs.
            seen: what the author has seen.
            device: the device whose logs alone are named.
            data_tips: tips of data logs to name.
            without: acts that the cuts leave out, so that they and what follows them lie beyond.
        """
        left_out = {act.hash for act in without}
        tips: dict[LogKey, Act] = {}
        for act in self.control if seen is None else seen:
            if act.header.kind is not Kind.CONTROL or act.header.acting_user != user.id or act.hash in left_out:
                continue
            best = tips.get(act.header.log)
            if (best is None or best.header.seq < act.header.seq) and (device is None or device.id == act.header.device):
                tips[act.header.log] = act
        named = [Cut(log.kind, log.device, log.epoch, act.header.seq, act.hash) for log, act in tips.items()]
        logs = tuple(sorted([*named, *data_tips]))
        return ((user.id, logs),) if logs else ()

    def leave(
        self,
        author: Author,
        *,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
        data_tips: Iterable[Cut] = (),
        without: Collection[Act] = (),
    ) -> Act:
        """Leaves the group; see `cuts`."""
        user = device_of(author).user
        seen = None if seen is None else tuple(seen)
        return self.write(author, Leave(self.cuts(user, seen=seen, data_tips=data_tips, without=without)), seen=seen, epoch=epoch)

    def promote(self, author: Author, user: User, role: Role, *, seen: Iterable[Act] | None = None, epoch: int = 0) -> Act:
        """Grants a member a role."""
        return self.write(author, SetRole(user.id, role), seen=seen, epoch=epoch)

    def demote(
        self,
        author: Author,
        user: User,
        role: Role,
        *,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
        data_tips: Iterable[Cut] = (),
        without: Collection[Act] = (),
    ) -> Act:
        """Lowers a member, maybe the author, to a role; see `cuts`."""
        seen = None if seen is None else tuple(seen)
        cuts = self.cuts(user, seen=seen, data_tips=data_tips, without=without)
        return self.write(author, SetRole(user.id, role, cuts), seen=seen, epoch=epoch)

    def remove(
        self,
        author: Author,
        user: User,
        *,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
        data_tips: Iterable[Cut] = (),
        without: Collection[Act] = (),
    ) -> Act:
        """Removes a member; see `cuts`."""
        seen = None if seen is None else tuple(seen)
        cuts = self.cuts(user, seen=seen, data_tips=data_tips, without=without)
        return self.write(author, Remove(user.id, cuts), seen=seen, epoch=epoch)

    def ban(
        self,
        author: Author,
        user: User,
        reason: str = "",
        *,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
        data_tips: Iterable[Cut] = (),
        without: Collection[Act] = (),
    ) -> Act:
        """Bans a user, member or not; see `cuts`."""
        seen = None if seen is None else tuple(seen)
        cuts = self.cuts(user, seen=seen, data_tips=data_tips, without=without)
        return self.write(author, Ban(user.id, reason, cuts), seen=seen, epoch=epoch)

    def unban(self, author: Author, user: User, *, seen: Iterable[Act] | None = None, epoch: int = 0) -> Act:
        """Lifts the bans of a user."""
        return self.write(author, Unban(user.id), seen=seen, epoch=epoch)

    def drop_device(
        self,
        author: Author,
        device: Device,
        *,
        seen: Iterable[Act] | None = None,
        epoch: int = 0,
        data_tips: Iterable[Cut] = (),
        without: Collection[Act] = (),
    ) -> Act:
        """Drops a device of a member, maybe of the author; see `cuts`."""
        seen = None if seen is None else tuple(seen)
        cuts = self.cuts(device.user, seen=seen, device=device, data_tips=data_tips, without=without)
        return self.write(author, DropDevice(device.user.id, device.id, cuts), seen=seen, epoch=epoch)
