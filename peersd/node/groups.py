"""Groups of a user: made, renamed, hidden, forgotten (API: group.*)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peersd.errors import PeersdError
from peersd.node import registry
from peersd.node.genesis import make_group
from peersd.node.group import Group
from peersd.node.invites import not_allowed
from peersd_protocol.acts import NONCE_BYTES, Genesis, Settings, encode_body
from peersd_protocol.constants import AVATAR_BYTES_MAX, DESCRIPTION_BYTES_MAX
from peersd_protocol.entries import EPOCH_BYTES, Kind
from peersd_protocol.names import is_description, is_name
from peersd_protocol.roles import Deed, may

if TYPE_CHECKING:
    from peersd.node.node import Node, User


def check_name(name: str) -> None:
    """Refuses names that no replica would accept.

    Raises:
        PeersdError: `too_large`.
    """
    if not is_name(name):
        raise PeersdError(
            "too_large", "That name cannot be used.", hint="1 to 128 characters, no control characters, no invisible ones."
        )


def _check_texts(description: str | None, avatar: bytes | None) -> None:
    if description is not None and not is_description(description):
        raise PeersdError(
            "too_large",
            "That description cannot be used.",
            hint=f"At most {DESCRIPTION_BYTES_MAX} bytes, no control characters but line breaks and tabs.",
        )
    if avatar is not None and len(avatar) > AVATAR_BYTES_MAX:
        raise PeersdError("too_large", "That picture is too large.", hint=f"At most {AVATAR_BYTES_MAX} bytes.")


async def create(node: Node, user: User, name: str, description: str | None) -> Group:
    """group.create."""
    check_name(name)
    _check_texts(description, None)
    assert node.device is not None
    identity = await node.identity_runs(user)
    epoch = node.entropy(EPOCH_BYTES)
    heads = (identity[-1].last.hash,)
    genesis = Genesis(name, node.entropy(NONCE_BYTES))
    run = make_group(node.device, user.id, heads, genesis, epoch=epoch, wall_ms=node.wall_ms())
    path = node.files.group_path(run.last.hash)
    group = await node.files.make(path, run.last.hash, [*identity, run], epoch)
    await node.add_group(user, group)
    if description:
        await update(user, group, None, description, None)
    return group


async def update(user: User, group: Group, name: str | None, description: str | None, avatar: bytes | None) -> None:
    """group.update."""
    if name is not None:
        check_name(name)
    _check_texts(description, avatar)
    held = group.summary.role_of(user.id)
    if not may(held, Deed.CHANGE_SETTINGS):
        raise not_allowed(held, "admin")
    async with group.use() as opened:
        await opened.store.act(user.id, Kind.CONTROL, encode_body(Settings(name, description, avatar)))


async def hide(user: User, group: Group, *, hidden: bool) -> None:
    """group.hide."""
    if group is user.personal:
        raise PeersdError("not_allowed", "The personal group cannot be hidden.", hint="It is where your groups are registered.")
    async with user.personal.use() as opened:
        await registry.hide(opened.store, user.id, group.text_id, hidden=hidden)
    user.note_hidden(group.id, hidden=hidden)


async def forget(node: Node, user: User, group: Group) -> None:
    """group.forget: only of a group that the user is no member of any more, since what was not sent yet would be lost."""
    if group is user.personal or group.summary.role_of(user.id):
        raise PeersdError("not_allowed", "You are a member of this group.", hint="Leave it first: `peers group leave`.")
    async with user.personal.use() as opened:
        await registry.forget(opened.store, user.id, group.text_id)
    del user.group_ids[group.id]
    user.untold.discard(group.id)
    if user.active == group.id:
        await node.activate(user, node.fallback(user))
    if all(group.id not in other.group_ids for other in node.users.values()):
        await node.discard_group(group)
