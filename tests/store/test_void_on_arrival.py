"""What ends by the very message that brings it: it counts for nothing, and others may wait for it all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from peersd_protocol.acts import Remove, Settings, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Role
from tests.store.pools import packed, runs_of
from tests.store.stores import Meeting, meet


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def test_an_act_that_ends_by_the_message_that_brings_it_is_told_as_void(meeting: Meeting) -> None:
    """It was told neither as held nor as void: what waited for it waited, and was asked for, for good."""
    admin, other = meeting.join("admin", Role.ADMIN), meeting.join("other")
    meet(meeting.founder, admin, other)
    late, _ = admin.store.act(admin.user, Kind.CONTROL, encode_body(Settings(name="late")))
    founder = meeting.founder.store
    removal, _ = founder.take_right(meeting.founder.user, lambda cuts: encode_body(Remove(admin.user, cuts(admin.user))))
    both = [run for run in runs_of(admin.store, founder) if run.last.hash in (late.hash, removal.hash)]
    assert len(both) == 2
    ingested, commit = other.store.take(packed(*both))
    assert ingested.void == (late.hash,)
    # Nor is its sender, which sent the removal too, taken to hold it.
    assert late.log not in ingested.held
    assert (late.log, (late.seq, late.hash)) in ingested.void_tips
    assert commit is not None
    assert [entry.hash for entry in commit.entries] == [removal.hash]
