"""Groups and what they amount to: SPEC, part A and U. Each scenario is a function that writes a history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from peersd.testing.worlds import Group, User, World
from peersd_protocol import canonical
from peersd_protocol.acts import Cut, Leave, Remove
from peersd_protocol.entries import Act
from peersd_protocol.roles import Role, format_role
from peersd_protocol.schema_ops import AddColumn, ColumnDef, CreateTable

ID, X, Y = ColumnDef("id", "TEXT"), ColumnDef("x", "TEXT"), ColumnDef("x", "INTEGER")


def found(*roles: Role) -> tuple[World, Group, list[User]]:
    world = World()
    users = [world.user(f"user-{number}") for number in range(len(roles) + 1)]
    group = world.group(users[0])
    for user, role in zip(users[1:], roles, strict=True):
        group.join(users[0], user, role)
    return world, group, users


def a_founder_alone() -> Group:
    return found()[1]


def one_member_of_each_role() -> Group:
    return found(Role.OWNER, Role.ADMIN, Role.MODERATOR, Role.WRITER, Role.READER)[1]


def invites_beyond_the_authors_power() -> Group:
    world, group, users = found(Role.ADMIN, Role.MODERATOR, Role.WRITER)
    zoe = world.user("zoe")
    for author, role in zip(users[1:], (Role.ADMIN, Role.MODERATOR, Role.READER), strict=True):
        group.admit(users[0], group.invite(author, role), zoe)
    return group


def acts_of_a_writer_and_of_a_stranger() -> Group:
    world, group, (_, writer) = found(Role.WRITER)
    for author in (writer, world.user("stranger")):
        group.settings(author, name="mine")
        group.schema(author, CreateTable("t", (ID,), (0,)))
    return group


def an_invite_used_up() -> Group:
    world, group, (founder, writer) = found(Role.WRITER)
    invite = group.invite(founder, max_uses=2)
    for number in range(3):
        group.admit(writer, invite, world.user(f"new-{number}"))
    return group


def an_invite_overused_by_two_members_apart() -> Group:
    world, group, (founder, one, two) = found(Role.WRITER, Role.READER)
    invite, newcomers = group.invite(founder), [world.user("new-1"), world.user("new-2")]
    before = group.acts
    for author, newcomer in zip((one, two), newcomers, strict=True):
        group.admit(author, invite, newcomer, seen=before)
    return group


def one_member_with_two_devices_overusing_an_invite() -> Group:
    world, group, (founder, one) = found(Role.WRITER)
    phone = world.add_device(one, "phone")
    invite, newcomers = group.invite(founder), [world.user("new-1"), world.user("new-2")]
    before = group.acts
    for author, newcomer in zip((one.device, phone), newcomers, strict=True):
        group.admit(author, invite, newcomer, seen=before)
    return group


def a_user_admitted_twice_by_one_invite() -> Group:
    world, group, (founder, one) = found(Role.WRITER)
    zoe, invite = world.user("zoe"), group.invite(founder)
    group.admit(one, invite, zoe)
    group.admit(founder, invite, zoe, link=1)
    return group


def a_spoiled_redemption() -> Group:
    world, group, (founder,) = found()
    invite = group.invite(founder)
    group.admit(founder, invite, world.user("zoe"), change=lambda admit: replace(admit, device_signature=bytes(64)))
    return group


def a_revocation_that_has_seen_one_of_two_admissions() -> Group:
    world, group, (founder, one) = found(Role.WRITER)
    invite, newcomers = group.invite(founder, max_uses=9), [world.user("new-1"), world.user("new-2")]
    group.admit(one, invite, newcomers[0])
    before = group.acts
    group.revoke(founder, invite, seen=before)
    group.admit(one, invite, newcomers[1], seen=before)
    return group


def an_invite_of_who_left() -> Group:
    world, group, (_, moderator, one) = found(Role.MODERATOR, Role.WRITER)
    invite, newcomers = group.invite(moderator, max_uses=9), [world.user("new-1"), world.user("new-2")]
    before = group.acts
    group.leave(moderator)
    group.admit(one, invite, newcomers[0], seen=before)
    group.admit(one, invite, newcomers[1])
    return group


def a_leave_and_acts_beyond_its_cut() -> Group:
    world, group, (_, admin) = found(Role.ADMIN)
    phone = world.add_device(admin, "phone")
    group.settings(phone, name="known")
    before = group.acts
    group.leave(admin, seen=before)
    group.settings(phone, name="beyond", seen=before)
    group.settings(admin, name="after")
    group.write(phone, [], seen=before, epoch=1)
    return group


def a_leave_that_names_no_log() -> Group:
    world, group, (_, admin) = found(Role.ADMIN)
    phone = world.add_device(admin, "phone")
    group.settings(phone, name="seen")
    before = group.acts
    group.write(admin, Leave(()), seen=before)
    group.settings(phone, name="unseen", seen=before)
    return group


def a_fork_below_the_cut() -> Group:
    world, group, (_, admin) = found(Role.ADMIN)
    phone = world.add_device(admin, "phone")
    root = group.write(phone, [])
    group.settings(phone, name="named")
    before = group.acts
    group.leave(admin, seen=before)
    group.write(phone, [2, [["name", "forged"]]], seen=before[:-1], after=root)
    return group


def a_leave_and_a_return() -> Group:
    _, group, (founder, admin) = found(Role.ADMIN)
    group.settings(admin, name="before")
    group.leave(admin)
    group.join(founder, admin, Role.ADMIN)
    group.write(admin, [2, [["description", "in the old epoch"]]])
    group.write(admin, [2, [["name", "in a new epoch"]]], epoch=1)
    return group


def the_last_admins_leave() -> Group:
    _, group, (founder, _) = found(Role.WRITER)
    group.leave(founder)
    group.settings(founder, name="still here")
    return group


def two_last_admins_leaving_apart() -> Group:
    _, group, (founder, one, two, _) = found(Role.ADMIN, Role.ADMIN, Role.WRITER)
    group.leave(founder)
    before = group.acts
    for admin in (one, two):
        group.leave(admin, seen=before)
    return group


def a_cut_at_a_tip_that_is_not_known() -> Group:
    world, group, (_, admin) = found(Role.ADMIN)
    phone = world.add_device(admin, "phone")
    early = group.write(phone, [])
    before = group.acts
    for name in ("second", "third"):
        group.settings(phone, name=name, seen=before)
    log = early.header.log
    tip = Cut(log.kind, log.device, log.epoch, 2, b"\xee" * 32)
    group.write(admin, Leave(((admin.id, (tip,)),)), seen=before)
    return group


def roles_set_by_each_role() -> Group:
    _, group, users = found(Role.OWNER, Role.ADMIN, Role.MODERATOR, Role.WRITER, Role.READER)
    before = group.acts
    for author in users:
        for target in users:
            group.promote(author, target, Role.ADMIN, seen=before)
            group.demote(author, target, Role.READER, seen=before, epoch=1)
    return group


def a_promotion_and_demotions_made_apart() -> Group:
    _, group, (founder, owner, _, one, two) = found(Role.OWNER, Role.ADMIN, Role.MODERATOR, Role.WRITER)
    admin = group.world.users[2]
    before = group.acts
    group.promote(owner, two, Role.MODERATOR, seen=before)
    group.demote(admin, two, Role.READER, seen=before)
    first = group.demote(owner, one, Role.READER, seen=before, epoch=1)
    group.demote(admin, one, Role.WRITER, seen=before, epoch=1)
    group.promote(founder, one, Role.ADMIN, seen=(*before, first))
    return group


def a_demotion_and_acts_beyond_its_cut() -> Group:
    _, group, (founder, admin, one) = found(Role.ADMIN, Role.READER)
    group.settings(admin, name="known")
    before = group.acts
    demotion = group.demote(founder, admin, Role.MODERATOR, seen=before)
    group.settings(admin, name="beyond", seen=before)
    group.promote(admin, one, Role.WRITER, seen=before, epoch=1)
    group.invite(admin, Role.READER, seen=(*before, demotion), epoch=2)
    return group


def members_lowering_themselves() -> Group:
    _, group, (founder, admin, one) = found(Role.ADMIN, Role.WRITER)
    group.demote(admin, admin, Role.MODERATOR)
    group.demote(one, one, Role.MODERATOR)
    group.demote(founder, founder, Role.WRITER)
    group.demote(founder, founder, Role.ADMIN)
    return group


def a_lowering_that_rests_on_a_promotion_that_fell() -> Group:
    _, group, (founder, admin, one) = found(Role.ADMIN, Role.READER)
    before = group.acts
    promotion = group.promote(admin, one, Role.MODERATOR, seen=before)
    group.demote(one, one, Role.WRITER, seen=(*before, promotion))
    group.remove(founder, admin, seen=before)
    return group


def removals_by_each_role() -> Group:
    _, group, users = found(Role.OWNER, Role.ADMIN, Role.MODERATOR, Role.WRITER, Role.READER)
    before = group.acts
    for author in users[::-1]:
        for target in users:
            group.remove(author, target, seen=before)
    return group


def a_removed_admin_backdates() -> Group:
    _, group, (founder, admin, one) = found(Role.ADMIN, Role.WRITER)
    group.settings(admin, name="known")
    before = group.acts
    group.remove(founder, admin)
    group.settings(admin, name="backdated", seen=before)
    group.remove(admin, one, seen=before, epoch=1)
    group.promote(admin, one, Role.MODERATOR, seen=before, epoch=2)
    return group


def a_removal_without_cuts() -> Group:
    world, group, (founder, admin) = found(Role.ADMIN)
    phone = world.add_device(admin, "phone")
    group.settings(phone, name="seen")
    before = group.acts
    group.write(founder, Remove(admin.id, ()), seen=before)
    group.settings(phone, name="unseen", seen=before)
    return group


def a_circle_of_removals() -> Group:
    _, group, (founder, owner, admin, one) = found(Role.OWNER, Role.ADMIN, Role.WRITER)
    before = group.acts
    promotion = group.promote(founder, one, Role.OWNER, seen=before)
    group.remove(one, admin, seen=(*before, promotion))
    group.remove(admin, one, seen=before)
    group.remove(owner, admin, seen=before)
    return group


def a_removal_and_admissions_before_apart_and_after() -> Group:
    world, group, (founder, moderator, one) = found(Role.MODERATOR, Role.READER)
    zoe, invite = world.user("zoe"), group.invite(founder, max_uses=9)
    group.admit(one, invite, zoe)
    before = group.acts
    group.remove(moderator, zoe, seen=before)
    group.admit(one, invite, zoe, seen=before, link=1)
    group.admit(one, invite, zoe, link=2)
    group.admit(one, group.invite(founder, Role.READER), zoe, link=3)
    return group


def an_invite_of_who_was_removed() -> Group:
    world, group, (founder, moderator, one) = found(Role.MODERATOR, Role.READER)
    invite, newcomers = group.invite(moderator, max_uses=9), [world.user(f"new-{number}") for number in range(3)]
    group.admit(one, invite, newcomers[0])
    before = group.acts
    group.remove(founder, moderator, seen=before)
    group.admit(one, invite, newcomers[1], seen=before)
    group.join(founder, moderator, Role.MODERATOR)
    group.admit(one, invite, newcomers[2])
    return group


def bans_and_unbans() -> Group:
    world, group, (founder, admin, moderator, one) = found(Role.ADMIN, Role.MODERATOR, Role.WRITER)
    zoe, yves = world.user("zoe"), world.user("yves")
    invite = group.invite(founder, max_uses=9)
    group.ban(moderator, one, "spam")
    group.ban(admin, zoe)
    group.ban(moderator, yves)
    later = group.invite(founder, max_uses=9)
    group.unban(moderator, zoe)
    group.unban(admin, yves)
    for number, user in enumerate((one, zoe, yves)):
        group.admit(founder, invite, user, link=number)
        group.admit(founder, later, user, link=number)
    return group


def a_ban_and_an_admission_made_apart() -> Group:
    world, group, (founder, moderator) = found(Role.MODERATOR)
    zoe, invite = world.user("zoe"), group.invite(founder, Role.ADMIN)
    before = group.acts
    group.ban(moderator, zoe, "beware", seen=before)
    group.admit(founder, invite, zoe, seen=before)
    return group


def dropped_devices() -> Group:
    world, group, (founder, admin, one) = found(Role.ADMIN, Role.WRITER)
    phone, tablet = world.add_device(admin, "phone"), world.add_device(one, "tablet")
    before = group.acts
    group.drop_device(founder, phone, seen=before)
    group.drop_device(one, tablet, seen=before)
    group.settings(phone, name="beyond the cut", seen=before)
    group.settings(phone, name="seen the drop", epoch=1)
    group.settings(admin, name="another device")
    group.promote(admin, one, Role.MODERATOR)
    group.invite(tablet, Role.READER, epoch=1)
    return group


def an_act_of_a_later_version() -> Group:
    _, group, (_, reader) = found(Role.READER)
    group.write(reader, [99, "later"])
    return group


def tables_made_apart_alike_and_unlike() -> Group:
    _, group, (founder, admin) = found(Role.ADMIN)
    before = group.acts
    one = group.schema(founder, CreateTable("t", (ID, X), (0,)), CreateTable("u", (ID, X), (0,)), seen=before)
    group.schema(admin, CreateTable("T", (ID, X), (0,)), CreateTable("u", (ID, Y), (0,)), seen=before)
    after = group.acts
    for author, column in ((founder, ColumnDef("z", "TEXT")), (admin, ColumnDef("z", "BLOB"))):
        group.schema(author, AddColumn((one.hash[:16], 0), column), seen=after)
    return group


SCENARIOS: list[Callable[[], Group]] = [
    a_founder_alone,
    one_member_of_each_role,
    invites_beyond_the_authors_power,
    acts_of_a_writer_and_of_a_stranger,
    an_invite_used_up,
    an_invite_overused_by_two_members_apart,
    one_member_with_two_devices_overusing_an_invite,
    a_user_admitted_twice_by_one_invite,
    a_spoiled_redemption,
    a_revocation_that_has_seen_one_of_two_admissions,
    an_invite_of_who_left,
    a_leave_and_acts_beyond_its_cut,
    a_leave_that_names_no_log,
    a_fork_below_the_cut,
    a_leave_and_a_return,
    the_last_admins_leave,
    two_last_admins_leaving_apart,
    a_cut_at_a_tip_that_is_not_known,
    roles_set_by_each_role,
    a_promotion_and_demotions_made_apart,
    a_demotion_and_acts_beyond_its_cut,
    members_lowering_themselves,
    a_lowering_that_rests_on_a_promotion_that_fell,
    removals_by_each_role,
    a_removed_admin_backdates,
    a_removal_without_cuts,
    a_circle_of_removals,
    a_removal_and_admissions_before_apart_and_after,
    an_invite_of_who_was_removed,
    bans_and_unbans,
    a_ban_and_an_admission_made_apart,
    dropped_devices,
    an_act_of_a_later_version,
    tables_made_apart_alike_and_unlike,
]


def entry(act: Act) -> dict[str, str]:
    return {"header": act.header.encoded.hex(), "body": canonical.encode(act.body).hex() if act.body else ""}


def expected(group: Group) -> dict[str, Any]:
    state = group.state()
    return {
        "name": state.name,
        "description": state.description,
        "members": {user.hex(): format_role(member.role) for user, member in state.members.items()},
        "invites": {
            invite.hex(): {"uses": it.uses, "overused": it.overused, "revoked": it.revoked, "withdrawn": it.withdrawn}
            for invite, it in state.invites.items()
        },
        "bans": {
            user.hex(): {"reason": ban.reason, "by": ban.banned_by.hex(), "hlc": ban.banned_hlc}
            for user, ban in state.bans.items()
        },
        "devices": {user.hex(): [device.hex() for device in member.devices] for user, member in state.members.items()},
        "ended": {user.hex(): member.ended for user, member in state.members.items() if member.ended},
        "void": sorted(act.hex() for act in state.void),
        "needs_upgrade": state.needs_upgrade,
        "tables": {table.name: [column.name for column in table.columns] for table in state.schema.tables},
    }


def make() -> dict[str, Any]:
    cases = []
    for scenario in SCENARIOS:
        group = scenario()
        entries = [entry(act) for act in group.acts]
        cases.append(
            {"name": scenario.__name__.replace("_", " "), "group": group.id.hex(), "acts": entries, "expected": expected(group)}
        )
    return {
        "description": (
            "Sets of acts, each as canonical header and canonical body (empty: none), and what they amount to: name and "
            "description, who is or was a member with the role now, how memberships ended, the member devices (and those that "
            "former members would have), the bans that hold, the invites that stand, the acts that do not, tables with their "
            "columns. The order of `acts` means nothing. A set is never invalid as a whole, so there are no invalid cases; acts "
            "that break a rule are listed as void."
        ),
        "valid": cases,
        "invalid": [],
    }
