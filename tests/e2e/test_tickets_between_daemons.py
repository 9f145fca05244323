"""Tickets: each works as often as it says, and each that does not work says why."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.client import PeersError
from peersd.testing.pairs import GROUP, open_pair, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def open_newcomer(base: Path, name: str) -> AsyncGenerator[DaemonProcess]:
    async with open_daemon(base, name) as daemon:
        await daemon.call("init", user_name=name)
        yield daemon


async def refusal(daemon: DaemonProcess, ticket: str, timeout_s: float = HANG_S) -> str:
    """The code that redeeming a ticket fails with; the error carries a hint, and the group is nowhere in the daemon."""
    with pytest.raises(PeersError) as caught:
        await daemon.call("invite.accept", ticket=ticket, timeout_s=timeout_s)
    assert caught.value.hint
    assert caught.value.message
    assert [group["kind"] for group in await daemon.call("group.list", include_hidden=True)] == ["personal"]
    assert [path.name for path in daemon.data.glob("group-*")] == []
    return caught.value.code


async def only_invite(daemon: DaemonProcess, invite_id: str) -> dict[str, Any]:
    (invite,) = [one for one in await daemon.call("invite.list", group=GROUP) if one["invite_id"] == invite_id]
    return dict(invite)


async def test_a_ticket_works_once_and_again_harmlessly_for_who_used_it(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair, open_newcomer(tmp_path, "eve") as eve, open_newcomer(tmp_path, "fay") as fay:
        made = await pair.ada.call("invite.create", group=GROUP, role="reader")
        joined = await eve.call("invite.accept", ticket=made["ticket"])
        assert (joined["name"], joined["role"]) == (GROUP, "reader")
        again = await eve.call("invite.accept", ticket=made["ticket"])
        assert again == joined
        # Who is a member already keeps the role; the ticket stays good for somebody else.
        other = await pair.ada.call("invite.create", group=GROUP, role="reader")
        assert (await pair.ben.call("invite.accept", ticket=other["ticket"]))["role"] == "admin"
        assert (await eve.call("invite.accept", ticket=other["ticket"]))["role"] == "reader"
        assert await refusal(fay, made["ticket"]) == "invite_used_up"
        uses = {one["invite_id"]: one["uses"] for one in await pair.ada.call("invite.list", group=GROUP)}
        assert (uses[made["invite_id"]], uses[other["invite_id"]]) == (1, 0)
        members = await pair.ada.call("member.list", group=GROUP)
        assert sorted((one["name"], one["role"]) for one in members) == [("ada", "founder"), ("ben", "admin"), ("eve", "reader")]
        # A reader reads, and no more.
        with pytest.raises(PeersError) as caught:
            await eve.call("sql.execute", sql="CREATE TABLE t (id TEXT PRIMARY KEY)", group=GROUP)
        assert (caught.value.code, caught.value.data["role_held"]) == ("not_allowed", "reader")


async def test_expired_used_up_revoked_and_garbled_tickets_each_get_their_own_error(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair, open_newcomer(tmp_path, "eve") as eve:
        short = await pair.ada.call("invite.create", group=GROUP, expires_in_s=1)
        revoked = await pair.ada.call("invite.create", group=GROUP)
        good = await pair.ada.call("invite.create", group=GROUP, max_uses=2)
        await pair.ada.call("invite.revoke", group=GROUP, invite_id=revoked["invite_id"])
        expires = datetime.fromisoformat(short["expires_at"]).timestamp()

        async def has_passed() -> bool:
            return time.time() > expires

        await until(has_passed)
        assert await refusal(eve, short["ticket"]) == "invite_expired"
        assert await refusal(eve, revoked["ticket"]) == "invite_revoked"
        ticket = good["ticket"]
        middle = len(ticket) // 2
        other = "a" if ticket[middle] != "a" else "b"
        for garbled in (ticket[:-1], ticket[:middle] + other + ticket[middle + 1 :], "ticket-", "hello", eve_id(ticket)):
            assert await refusal(eve, garbled) == "invite_invalid"
        # Copied out of a mail, with its line breaks, and in capitals.
        wrapped = "\n".join(ticket[start : start + 60] for start in range(0, len(ticket), 60))
        assert (await eve.call("invite.accept", ticket=f"  {wrapped.upper()}\n"))["role"] == "writer"
        invite = await only_invite(pair.ada, good["invite_id"])
        assert (invite["uses"], invite["max_uses"], invite["revoked"]) == (1, 2, False)
        assert (await only_invite(pair.ada, revoked["invite_id"]))["revoked"] is True


def eve_id(ticket: str) -> str:
    """A well-formed id, but of something else."""
    return "grp-" + ticket.removeprefix("ticket-")


async def test_of_two_who_redeem_the_last_use_at_once_one_gets_in(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair, open_newcomer(tmp_path, "eve") as eve, open_newcomer(tmp_path, "fay") as fay:
        ticket = (await pair.ada.call("invite.create", group=GROUP))["ticket"]
        outcomes: dict[str, str] = {}

        async def redeem(daemon: DaemonProcess, name: str) -> None:
            try:
                outcomes[name] = (await daemon.call("invite.accept", ticket=ticket, timeout_s=HANG_S))["role"]
            except PeersError as error:
                outcomes[name] = error.code

        async with trio.open_nursery() as nursery:
            nursery.start_soon(redeem, eve, "eve")
            nursery.start_soon(redeem, fay, "fay")
        assert sorted(outcomes.values()) == ["invite_used_up", "writer"]
        inside = {"ada", "ben"} | {name for name, outcome in outcomes.items() if outcome == "writer"}
        await pair.sync()
        for daemon in (pair.ada, pair.ben):
            assert {one["name"] for one in await daemon.call("member.list", group=GROUP)} == inside


async def test_a_ticket_outlives_a_restart_of_the_inviter_and_says_when_nobody_answers(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair, open_newcomer(tmp_path, "eve") as eve:
        ticket = (await pair.ada.call("invite.create", group=GROUP))["ticket"]
        await pair.ada.terminate()
        assert await refusal(eve, ticket) == "unreachable"
        await pair.ada.start()
        # Spent by nobody, it works still.
        assert (await eve.call("invite.accept", ticket=ticket))["role"] == "writer"
