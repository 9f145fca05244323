"""Modified peers: what a reader, or a member who was removed, makes with its key counts nowhere, and stops nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from peersd.store.branches import State
from peersd.testing.forging import Forged, copy_folder, entries_of, open_forger, open_rogue, receive_all
from peersd.testing.observing import read_entries
from peersd.testing.pairs import GROUP, until
from peersd.testing.processes import HANG_S
from peersd.testing.teams import Team, open_team, refused
from peersd_protocol.acts import Invite, Remove, SetRole, Settings
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode
from peersd_protocol.group_state import GroupState
from peersd_protocol.roles import Role
from peersd_protocol.runs import Entry
from peersd_protocol.signing import SigningKey

pytestmark = pytest.mark.e2e

NEVER_MS = 2**41


def states(team: Team, name: str, *forged: Forged) -> list[int | None]:
    """The states that a device gave to entries; None for one that it does not have."""
    rows = {entry.hash: entry.state for entry in read_entries(team.path(name))}
    return [rows.get(one.hash) for one in forged]


def hashes(team: Team, name: str) -> set[bytes]:
    """The hashes of all entries that a device has."""
    return {entry.hash for entry in read_entries(team.path(name))}


def user_of(state: GroupState, name: str) -> bytes:
    """The id of the user of this name."""
    (found,) = [user for user, member in state.members.items() if member.name == name]
    return found


async def arrives(team: Team, name: str, *forged: Forged) -> None:
    """Return when a device has taken these entries in, whatever it makes of them."""

    async def is_there() -> bool:
        return None not in states(team, name, *forged)

    await until(is_there)


async def test_what_a_reader_forges_is_void_on_every_replica_goes_no_further_and_holds_up_nothing(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer", cem="reader") as team:
        ada, ben, cem = team["ada"], team["ben"], team["cem"]
        await team.write("ada", "by ada")
        await team.sync()
        error = await refused(cem, "sql.execute", group=GROUP, sql="INSERT INTO note VALUES ('x', 'x')")
        assert (error.code, error.data["role_needed"], error.data["role_held"]) == ("not_allowed", "writer", "reader")
        await cem.terminate()

        copy = copy_folder(cem, tmp_path / "copy") / team.path("cem").name
        with open_forger(copy) as forger:
            keys = forger.keys
            row = forger.forge("INSERT INTO note VALUES ('forged', 'forged')")
            change = forger.forge("UPDATE note SET text = 'forged'")
            gone = forger.forge("DELETE FROM note")
            invite = forger.forge_act(Invite(Role.WRITER, NEVER_MS, 9, SigningKey(bytes(32)).public))
            higher = forger.forge_act(SetRole(forger.user, Role.ADMIN))
            lower = forger.forge_act(SetRole(user_of(forger.state, "ben"), Role.READER, ()))
            out = forger.forge_act(Remove(user_of(forger.state, "ada"), ()))
            name = forger.forge_act(Settings("forged", None, None))
            forged = (row, change, gone, invite, higher, lower, out, name)
        async with open_rogue(await ben.url(), keys) as rogue:
            await rogue.open(team.group_id, [one.message for one in forged])
            await arrives(team, "ben", *forged)
            await team.write("ben", "by ben")
            await team.sync("ada", "ben")
        assert states(team, "ben", *forged) == [State.VOID] * 8
        assert states(team, "ada", *forged) == [None] * 8  # who holds it to be void passes it on to nobody
        async with open_rogue(await ada.url(), keys) as rogue:
            await rogue.open(team.group_id, [one.message for one in forged])
            await arrives(team, "ada", *forged)
        assert states(team, "ada", *forged) == [State.VOID] * 8

        # The same from a real daemon that runs on a file which was tampered with.
        with open_forger(team.path("cem")) as forger:
            own = forger.forge("INSERT INTO note VALUES ('own', 'own')")
        await cem.start()
        for name_ in ("ada", "ben"):
            await arrives(team, name_, own)
            assert states(team, name_, own) == [State.VOID]
        await team.write("ben", "by ben, later")
        await ben.call("sync.wait", group=GROUP, timeout_s=60)
        for name_ in ("ada", "ben"):
            assert await team.notes(name_) == ["by ada", "by ben", "by ben, later"]
            members = await team.members(name_)
            assert {member: one["role"] for member, one in members.items()} == {
                "ada": "founder",
                "ben": "writer",
                "cem": "reader",
            }
        assert await ada.call("invite.list", group=GROUP) == await ben.call("invite.list", group=GROUP)
        assert await team.notes("cem") == ["by ada", "by ben", "by ben, later", "own"]  # shown to who fools itself

        # Made a writer, it writes as one, and what it forged before stays where it is.
        await ada.call("member.set_role", group=GROUP, user="cem", role="writer")

        async def may_write() -> bool:
            return bool((await team.group("cem"))["role"] == "writer")

        await until(may_write)
        await team.write("cem", "by cem")
        await team.sync()
        for name_ in team.daemons:
            assert await team.notes(name_) == ["by ada", "by ben", "by ben, later", "by cem"]


async def test_who_was_removed_hears_why_and_nothing_else_and_what_it_sends_is_not_even_kept(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="admin") as team:
        ada, ben = team["ada"], team["ben"]
        await team.write("ben", "by ben")
        await team.sync()
        await ben.terminate()
        copy = copy_folder(ben, tmp_path / "copy") / team.path("ben").name
        with open_forger(copy) as forger:
            keys, digest = forger.keys, forger.digest
        # One that stays on the line, whatever it hears, and claims to hold all, so that everything new is pushed to it.
        async with open_rogue(await ada.url(), keys) as rogue:
            channel = await rogue.open(team.group_id, digest=digest)
            await team.write("ada", "still")
            known = hashes(team, "ada")
            pushed: list[Entry] = []
            with trio.fail_after(HANG_S):
                while not pushed:
                    pushed = entries_of([await channel.receive()], team.group_id)
            assert [entry.header.kind for entry in pushed] == [Kind.DATA] and pushed[0].header.hash in known
            await ada.call("member.remove", group=GROUP, user="ben")
            acts = hashes(team, "ada") - known
            await team.write("ada", "after")
            messages, code = await receive_all(channel)
        assert (len(acts), code) == (1, CloseCode.NOT_MEMBER)
        assert {entry.header.hash for entry in entries_of(messages, team.group_id)} <= known
        await ada.call("group.update", group=GROUP, description="after")
        await ada.call("invite.create", group=GROUP)

        # As it would go on if it knew of nothing: in its old logs, which others may still take for its own, and in new ones.
        with open_forger(copy, backdated=True) as forger:
            forged = [forger.forge("INSERT INTO note VALUES ('old log', 'old log')")]
            forger.renew_epoch()
            forged += [forger.forge("UPDATE note SET text = 'new log'"), forger.forge_act(SetRole(forger.user, Role.READER))]
            assert forged[0].epoch != forged[1].epoch
        async with open_rogue(await ada.url(), keys) as rogue:
            channel = await rogue.open(team.group_id, [one.message for one in forged])
            messages, code = await receive_all(channel)
        assert code is CloseCode.NOT_MEMBER
        told = entries_of(messages, team.group_id)
        assert acts <= {entry.header.hash for entry in told} <= acts | known
        assert Kind.DATA not in {entry.header.kind for entry in told}
        assert states(team, "ada", *forged) == [None] * len(forged)
        assert await team.notes("ada") == ["after", "by ben", "still"]
        assert (await team.members("ada"))["ben"]["role"] == "none"


async def test_what_a_removed_member_writes_afterwards_counts_nowhere_whoever_brings_it(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer", cem="writer") as team:
        ada, ben, cem = team["ada"], team["ben"], team["cem"]
        first = await team.write("ben", "before")
        await team.sync()
        await ben.terminate()
        await cem.terminate()
        await ada.call("member.remove", group=GROUP, user="ben")
        await team.write("ada", "after")
        await ada.terminate()

        # Neither of these two knows of the removal. What they share meanwhile is good, as far as they can tell.
        with open_forger(team.path("ben"), backdated=True) as forger:
            forged = [
                forger.forge("INSERT INTO note VALUES ('in the old log', 'in the old log')"),
                forger.forge("UPDATE note SET text = 'changed' WHERE id = 'before'"),
            ]
            forger.renew_epoch()
            forged.append(forger.forge("INSERT INTO note VALUES ('in a new log', 'in a new log')"))
        assert [one.epoch.hex() == first["writer"].partition("/")[2] for one in forged] == [True, True, False]
        await ben.start()
        await cem.start()
        await team.write("ben", "live")
        await team.sync("ben", "cem")
        assert await team.notes("cem") == ["changed", "in a new log", "in the old log", "live"]
        assert states(team, "cem", *forged) == [State.APPLIED] * 3
        await team.write("cem", "by cem")
        await team.sync("ben", "cem")
        await ben.terminate()

        # Through the other it comes to who knows better; there it never shows, and from then on it shows nowhere.
        await ada.start()
        await team.sync("ada", "cem")
        for name in ("ada", "cem"):
            assert await team.notes(name) == ["after", "before", "by cem"]
            assert set(states(team, name, *forged)) <= {State.VOID, State.ANCESTOR}
        await ben.start()

        async def has_heard() -> bool:
            return bool((await team.group("ben"))["state"] == "removed")

        await until(has_heard)
        # Its rows are gone from its own table too, and listed for it; what others wrote since is not for it any more.
        assert await team.notes("ben") == ["before", "by cem"]
        assert (await ben.call("group.show", group=GROUP))["voided_entries"] == 4
        await team.write("cem", "the end")
        await team.sync("ada", "cem")
        assert await team.notes("ada") == ["after", "before", "by cem", "the end"]
