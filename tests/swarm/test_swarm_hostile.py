"""A member's device that says what it likes after a good handshake: its own links and sessions end, and the others meet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from itertools import permutations
from pathlib import Path

import pytest
import trio

from peersd.errors import PeersdError
from peersd.net.channels import OpenRefused
from peersd.testing.forging import Rogue, open_forger, receive_all
from peersd.testing.fuzzing.live import send_messages, world_of
from peersd.testing.swarm import Swarm, SwarmFailed, open_swarm
from peersd.testing.swarm.hostile import Hostile
from peersd_protocol import ids
from peersd_protocol.acts import Invite, Settings
from peersd_protocol.errors import CloseCode
from peersd_protocol.messages import Runs, decode_message, decode_runs, encode_runs

SCHEMA = ["CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"]
INSERT = "INSERT INTO note (text) VALUES (?)"
GROUPS = {"x": ["ada", "ben", "cem", "mal"], "y": ["ben", "cem", "ada"]}
CASES = 100

pytestmark = pytest.mark.sim


def links_between(swarm: Swarm, names: Sequence[str]) -> dict[tuple[str, str], tuple[bytes, frozenset[int]]]:
    """The link of each pair, by the hash of its handshake, and the numbers of its channels: new ones would have others."""
    found: dict[tuple[str, str], tuple[bytes, frozenset[int]]] = {}
    for one, other in permutations(names, 2):
        links = swarm.devices[one].node.links
        handle = links.to_device(swarm.devices[other].id) if links is not None else None
        assert handle is not None, f"{one} has no link to {other}"
        found[one, other] = handle.handshake_hash, frozenset(handle.channels)
    return found


async def test_a_hostile_member_s_rubbish_ends_its_own_sessions_and_the_others_meet(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with open_swarm(devices=["ada", "ben", "cem", "mal"], groups=GROUPS, schema=SCHEMA, seed=1) as swarm:
        await swarm.execute("ben", INSERT, ["before"], group="x")
        await swarm.converged()
        await trio.sleep(20)
        group_id = swarm.group_id("x")
        links = links_between(swarm, GROUPS["y"])
        async with swarm.hostile("mal") as mal:
            async with mal.link("ada") as link:
                _, code = await receive_all(await link.open(group_id, [b"rubbish"]))
                assert code is CloseCode.MALFORMED
            folders = {
                who: swarm.devices[name].folder for who, name in (("victim", "ada"), ("bystander", "ben"), ("hostile", "mal"))
            }
            world = await world_of(swarm.devices["ada"].node.groups[ids.parse_id(ids.GROUP, group_id)], tmp_path, **folders)
            said = await send_messages(lambda: mal.link("ada"), world, 1, CASES)
            assert said.taken >= 20
            assert {"MALFORMED", "BAD_SIGNATURE"} <= set(said.refused), said
            for group in GROUPS:
                for name in ("ada", "ben", "cem"):
                    await swarm.execute(name, INSERT, [f"after, by {name}"], group=group)
            await swarm.converged()
        assert links_between(swarm, GROUPS["y"]) == links  # those of before, with the channels of before
        assert [len(await swarm.query(name, "SELECT 1 FROM note", group="y")) for name in GROUPS["y"]] == [3, 3, 3]


async def test_what_a_hostile_device_makes_others_log_is_held_against_nobody_but_an_honest_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(SwarmFailed, match="honest-refused: ada logged: session closed for a fault of the remote side"):
        async with open_swarm(devices=["ada", "mal"], schema=SCHEMA, seed=1) as swarm:
            group_id = ids.parse_id(ids.GROUP, swarm.group_id())
            async with swarm.hostile("mal") as mal, mal.link("ada") as link:
                swarm.taken_over.clear()  # as if it were one of the honest
                await receive_all(await link.open(group_id, [b"rubbish"]))


async def test_what_fails_beside_a_link_of_a_hostile_device_s_is_raised_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=["ada", "mal"], seed=1) as swarm, swarm.hostile("mal") as mal:
        with pytest.raises(OpenRefused):
            async with mal.link("ada") as link:
                await link.open(bytes(32))
        await swarm.crash("ada")
        with pytest.raises(PeersdError, match="cannot reach"):
            async with mal.link("ada"):
                pytest.fail("there is a link")


async def test_a_link_to_nobody_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=["ada", "mal"], seed=1) as swarm, swarm.hostile("mal") as mal:
        for name, sentence in {"adda": "No device is called 'adda'; known are 'ada'", "mal": "No device is called 'mal'"}.items():
            with pytest.raises(ValueError, match=sentence):
                async with mal.link(name):
                    pytest.fail("there is a link")


async def plead_for_50_seconds(link: Rogue, group: str, plea: bytes) -> list[bytes | None]:
    """What is answered to each of many pleas: None to most, the messages of a farewell to some."""
    answers: list[bytes | None] = []
    end_s = trio.current_time() + 50  # after 60 without a channel a stranger's link ends
    while trio.current_time() < end_s:
        try:
            messages, code = await receive_all(await link.plead(group, plea))
            assert code is CloseCode.NOT_MEMBER
            answers.append(b"".join(messages))
        except OpenRefused as refused:
            answers.append(refused.payload or None)
        await trio.sleep(0.1)
    return answers


async def test_a_removed_member_that_pleads_without_end_gains_nothing_and_is_looked_at_ever_more_rarely(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_swarm(devices=["ada", "ben", "mal"], schema=SCHEMA, seed=3) as swarm:
        group = swarm.group_id()
        id_ = ids.parse_id(ids.GROUP, group)
        await swarm.peers("ada").call("member.set_role", group=group, user="mal", role="admin")
        await swarm.converged()
        await swarm.peers("ada").call("member.remove", group=group, user="mal")
        await swarm.converged()
        ada, path = swarm.devices["ada"].node.groups[id_], swarm.devices["mal"].node.groups[id_].path
        async with swarm.hostile("mal") as mal:
            with open_forger(path) as forger:
                farewell = decode_message(forger.farewell(mal.keys.device)[0])
                forged = [forger.forge_act(Settings(name=f"mine {number}")).message for number in range(20)]
                forged.append(forger.forge_act(Invite(40, 1 << 47, 1000, bytes(32))).message)
            packed = [farewell, *map(decode_message, forged)]
            plea = encode_runs([run for one in packed if isinstance(one, Runs) for run in decode_runs(one, id_)])
            async with ada.use() as opened:
                before = opened.store.store.log.position, opened.sync.vector(), opened.state.membership
                async with mal.link("ada") as link:
                    answers = await plead_for_50_seconds(link, group, plea)
                assert (opened.store.store.log.position, opened.sync.vector(), opened.state.membership) == before
            farewells = [answer for answer in answers if answer is not None]
            assert len(answers) > 350 and 10 <= len(farewells) <= 13 and len(set(farewells)) == 1
            caplog.clear()
            async with mal.link("ada") as link:
                assert len(await plead_for_50_seconds(link, group, b"rubbish")) > 350
            looked_at = [record for record in caplog.records if record.getMessage() == "plea_refused"]
            assert 10 <= len(looked_at) <= 13, "after one second, two, four, and then five, a swarm's longest wait"
        await swarm.execute("ben", INSERT, ["after"])
        await swarm.converged()


async def test_who_links_anew_for_each_plea_is_looked_at_no_oftener(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_swarm(devices=["ada", "mal"], schema=SCHEMA, seed=3) as swarm:
        group = swarm.group_id()
        await swarm.peers("ada").call("member.remove", group=group, user="mal")
        await swarm.converged()
        async with swarm.hostile("mal") as mal:
            caplog.clear()
            tries, end_s = 0, trio.current_time() + 30
            while trio.current_time() < end_s:
                async with mal.link("ada") as link:
                    with trio.move_on_after(0.1), suppress(OpenRefused):
                        await link.plead(group, b"rubbish")
                    await trio.sleep(0.1)
                    tries += 1
            looked_at = [record for record in caplog.records if record.getMessage() == "plea_refused"]
            assert tries > 100 and 25 <= len(looked_at) <= 31


async def plead_without_end(mal: Hostile, name: str, group: str) -> None:
    """By a new link each time, so that no wait of a link's is its own."""
    while True:
        with suppress(OpenRefused, PeersdError):
            async with mal.link(name) as link:
                await link.plead(group, b"rubbish")


async def test_who_has_something_to_show_is_heard_beside_many_who_plead_without_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As in test_swarm_members.py: ben was removed by cem, who could not, and dan has heard of that alone."""
    hostile = [f"mal{number}" for number in range(8)]
    async with (
        open_swarm(devices=["ada", "ben", "cem", "dan", *hostile], schema=SCHEMA, seed=6) as swarm,
        AsyncExitStack() as stack,
    ):
        group = swarm.group_id()
        await swarm.peers("ada").call("member.set_role", group=group, user="cem", role="admin")
        for name in hostile:
            await swarm.peers("ada").call("member.remove", group=group, user=name)
        await swarm.converged()
        taken = [await stack.enter_async_context(swarm.hostile(name)) for name in hostile]
        swarm.partition(["ada", "ben"], ["cem", "dan", *hostile])
        await trio.sleep(60)  # till the links are known to be dead: what was sent on them would arrive yet
        await swarm.peers("cem").call("member.remove", group=group, user="ben")
        await swarm.peers("ada").call("member.remove", group=group, user="cem")
        await trio.sleep(5)
        for gone in ("ada", "cem"):
            await swarm.stop(gone)
        async with trio.open_nursery() as nursery:
            for mal in taken:
                nursery.start_soon(plead_without_end, mal, "dan", group)
            swarm.heal()
            await swarm.execute("ben", INSERT, ["from ben"])
            with trio.fail_after(
                30
            ):  # each of the others has its turn once before it, and the group rests for a second after each
                while await swarm.query("dan", "SELECT text FROM note") != [("from ben",)]:
                    await trio.sleep(1)
            nursery.cancel_scope.cancel()
