"""Tickets where the inviter's device is off: another member's admits, and refuses, as the inviter's would."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from peersd.testing.pairs import GROUP, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon
from peersd.testing.teams import open_team, redeem
from peersd_protocol.tickets import parse_ticket

pytestmark = pytest.mark.e2e


async def names_address_of(ticket: str, *daemons: DaemonProcess) -> bool:
    """Whether a ticket can be redeemed at each of these."""
    urls = [await daemon.url() for daemon in daemons]
    return set(urls) <= set(parse_ticket(ticket).addresses)


async def test_a_ticket_is_redeemed_at_a_readers_device_while_the_inviters_is_off(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="reader") as team, open_daemon(tmp_path, "eve") as eve:
        ada, ben = team["ada"], team["ben"]
        eve_id = (await eve.call("init", user_name="eve"))["user_id"]
        await team.write("ada", "by ada")
        made = await ada.call("invite.create", group=GROUP, role="moderator")
        assert await names_address_of(made["ticket"], ada, ben)
        await team.sync()
        await ada.terminate()
        joined = await eve.call("invite.accept", ticket=made["ticket"], timeout_s=HANG_S)
        # A reader could never have invited a moderator, and lets in whom the founder did.
        assert (joined["name"], joined["role"]) == (GROUP, "moderator")
        await eve.call("sql.execute", sql="INSERT INTO note VALUES ('by eve', 'by eve')")
        await eve.call("sync.wait", timeout_s=HANG_S)
        assert await team.notes("ben") == ["by ada", "by eve"]
        await ada.start()

        async def has_heard() -> bool:
            return await team.notes("ada") == ["by ada", "by eve"]

        await until(has_heard)
        members = await team.members("ada")
        assert (members["eve"]["user_id"], members["eve"]["role"]) == (eve_id, "moderator")
        (invite,) = [one for one in await ada.call("invite.list", group=GROUP) if one["invite_id"] == made["invite_id"]]
        assert (invite["uses"], invite["max_uses"]) == (1, 1)


async def test_with_the_inviter_off_another_member_says_why_a_ticket_does_not_work(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="reader", fay="writer") as team, open_daemon(tmp_path, "eve") as eve:
        ada, fay = team["ada"], team["fay"]
        await eve.call("init", user_name="eve")

        async def invite(expires_in_s: int = 600) -> dict[str, Any]:
            made: dict[str, Any] = await ada.call("invite.create", group=GROUP, expires_in_s=expires_in_s)
            return made

        short, used, revoked, good = await invite(1), await invite(), await invite(), await invite()
        await ada.call("invite.revoke", group=GROUP, invite_id=revoked["invite_id"])
        async with open_daemon(tmp_path, "gus") as gus:
            await gus.call("init", user_name="gus")
            assert await redeem(gus, used["ticket"]) == "writer"
        await ada.call("ban.add", group=GROUP, user="fay", reason="no more")
        await team.sync("ada", "ben")
        await ada.terminate()
        expires_s = datetime.fromisoformat(short["expires_at"]).timestamp()

        async def has_passed() -> bool:
            return time.time() > expires_s

        await until(has_passed)
        assert await redeem(eve, short["ticket"]) == "invite_expired"
        assert await redeem(eve, used["ticket"]) == "invite_used_up"
        assert await redeem(eve, revoked["ticket"]) == "invite_revoked"
        assert await redeem(fay, good["ticket"]) == "banned"
        ticket = good["ticket"]
        for garbled in (ticket[:-3], ticket[:30] + ticket[31:], ticket.replace("ticket-", "inv-"), "ticket-" + "a" * 100):
            assert await redeem(eve, garbled) == "invite_invalid"
        told = await eve.peers("join", short["ticket"])
        assert (told.status, "(invite_expired)" in told.err, "hint: " in told.err) == (1, True, True)
        # None of it left anything behind, and none of it cost the ticket that is good.
        assert [group["kind"] for group in await eve.call("group.list", include_hidden=True)] == ["personal"]
        assert list(eve.data.glob("group-*")) == []
        assert await redeem(eve, ticket) == "writer"
        assert sorted(member["name"] for member in await eve.call("member.list")) == ["ada", "ben", "eve", "gus"]
