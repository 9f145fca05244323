"""Groups of a user: made, renamed, hidden, forgotten (API: group.*)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.node.genesis import make_group
from peersd.node.group import Group
from peersd.node.users import User
from peersd.store.refusals import not_allowed
from peersd_protocol.acts import NONCE_BYTES, Genesis, Settings, encode_body
from peersd_protocol.constants import AVATAR_BYTES_MAX, DESCRIPTION_BYTES_MAX
from peersd_protocol.entries import EPOCH_BYTES, Kind
from peersd_protocol.names import is_description, is_name
from peersd_protocol.roles import Deed, Role, may

if TYPE_CHECKING:
    from peersd.node.node import Node

HEARD_WAIT_S: Final = 5.0
"""How long forgetting a group waits for a linked member to hear of the leave (guess: a message there and one back)."""


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
    identity = await user.identity_runs()
    epoch = node.entropy(EPOCH_BYTES)
    heads = (identity[-1].last.hash,)
    genesis = Genesis(name, node.entropy(NONCE_BYTES))
    run = make_group(node.device, user.id, heads, genesis, epoch=epoch, wall_ms=node.wall_ms())
    path = node.files.group_path(run.last.hash)
    group = await node.files.make(path, run.last.hash, [*identity, run], epoch)
    reach(CrashPoint.GROUP_CREATED)
    try:
        await user.register(group)
    except BaseException:
        if group.id not in user.group_ids:
            await node.discard_group(group)  # who is told of a failure makes another
        raise
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
        raise not_allowed(group.summary, user.id, Role.ADMIN)
    async with group.use() as opened:
        await opened.store.act(user.id, Kind.CONTROL, encode_body(Settings(name, description, avatar)))


async def hide(user: User, group: Group, *, hidden: bool) -> None:
    """group.hide."""
    if group is user.personal:
        raise PeersdError("not_allowed", "The personal group cannot be hidden.", hint="It is where your groups are registered.")
    await user.hide(group, hidden=hidden)


async def forget(node: Node, user: User, group: Group) -> None:
    """group.forget: only of a group that the user is no member of any more, since what was not sent yet would be lost.

    Comes to its end even when cancelled.
    """
    # Not while a ticket of it is redeemed: that would go on in a file that is deleted.
    async with node.joining.setdefault(group.id, trio.Lock()):
        if group is not user.personal and group.id not in user.group_ids:
            raise PeersdError("group_not_found", "That group has just been forgotten.", hint="`peers groups --all` shows all.")
        group = node.groups[group.id]
        if group is user.personal:
            raise PeersdError(
                "not_allowed", "The personal group cannot be forgotten.", hint="It is where your groups are registered."
            )
        if group.summary.role_of(user.id):
            raise PeersdError("not_allowed", "You are a member of this group.", hint="Leave it first: `peers group leave`.")
        await _await_heard(node, user, group)
        with trio.CancelScope(shield=True):
            await _forget(node, user, group)


async def _await_heard(node: Node, user: User, group: Group) -> None:
    """Returns once another member has heard that the user left; that is under way where one is linked.

    Raises:
        PeersdError: `not_allowed`: what the user wrote last, and the leave, may be in this file alone.
    """

    def is_linked() -> bool:
        handles = node.links.handles() if node.links else ()
        return any(handle.remote_device in group.summary.member_devices for handle in handles)

    with trio.move_on_after(HEARD_WAIT_S):
        while group.id in user.untold and is_linked():
            await node.leave_heard.wait()
    if group.id in user.untold:
        raise PeersdError(
            "not_allowed",
            "No other member has heard yet that you left, nor what you wrote last.",
            hint="Link to one of them first: `peers connect URL`.",
            retry=True,
        )


async def _forget(node: Node, user: User, group: Group) -> None:
    await user.forget(group)
    if all(group.id not in other.group_ids for other in node.users.values()):
        await node.discard_group(group)
