"""A store as tasks use it: what they are told of a commit, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from peersd.store.handle import open_store
from peersd.store.store import open_store as open_file
from peersd_protocol.acts import Remove, Settings, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Role
from tests.store.pools import packed, runs_of
from tests.store.stores import Meeting


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


async def test_of_acts_the_group_is_told_before_anything_is_pushed(meeting: Meeting) -> None:
    founder, member = meeting.founder, meeting.join("member")
    member.note("1", "known")
    data = [run for run in runs_of(member.store) if run.log.kind is Kind.DATA]
    founder.store.close()
    told: list[str] = []
    async with open_store(lambda: open_file(founder.path, founder.context, founder.mark), founder.path) as handle:
        handle.on_acts = lambda: told.append(f"acts: {handle.store.state.role_of(member.user).name}")
        handle.on_commit = lambda commit, origin: told.append(f"commit of {len(commit.entries)} by {origin}")
        await handle.act(founder.user, Kind.CONTROL, encode_body(Settings(name="renamed")))
        await handle.take(packed(*data), 7)
        header = await handle.take_right(founder.user, lambda cuts: encode_body(Remove(member.user, cuts(member.user))))
        assert header.hash in handle.store.state.standing
        assert handle.store.state.role_of(member.user) is Role.NONE
        assert len(await handle.farewell(member.person.keys.device)) == 1
        assert await handle.voided(founder.user) == []
    assert told == [
        "acts: WRITER",
        "commit of 1 by None",
        "commit of 1 by 7",
        "acts: NONE",
        "commit of 1 by None",
    ]
    founder.store = open_file(founder.path, founder.context, founder.mark)
