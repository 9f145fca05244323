"""Who leaves loses nothing that was written before: its device's leave waits for the rows that it names (SPEC: E-26, R-13)."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from peersd.testing.simulator.founding import admit
from peersd_protocol import canonical
from peersd_protocol.acts import Cut, DropDevice, Leave, encode_body
from peersd_protocol.blocks import split_body
from peersd_protocol.constants import INLINE_BODY_BYTES_MAX, LEAVE_WAIT_MS
from peersd_protocol.entries import Header, Kind
from peersd_protocol.messages import Block, Runs, Want, decode_message
from peersd_protocol.replication import Parked
from peersd_protocol.roles import Role
from peersd_protocol.runs import Run, run_value
from tests.store.sessions import Network
from tests.store.stores import Meeting, Replica, fetch, meet, missing, take_all


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def write(replica: Replica, *names: str) -> None:
    for name in names:
        replica.note(name, "title")


def names(replica: Replica) -> list[object]:
    return sorted(row[0] for row in replica.notes())  # type: ignore[type-var]


def leave(replica: Replica) -> Header:
    return replica.store.take_right(replica.user, lambda cuts: encode_body(Leave(cuts(replica.user))))[0]


def leave_in(network: Network, number: int) -> None:
    node = network.nodes[number]
    replica = network.replicas[number]
    node.tell(replica.store.take_right(replica.user, lambda cuts: encode_body(Leave(cuts(replica.user))))[1])


def is_member(replica: Replica, leaver: Replica) -> bool:
    return leaver.person.keys.device in replica.store.state.member_devices


def admit_again(meeting: Meeting, replica: Replica) -> None:
    founder = meeting.founder
    admit(founder.store, founder.person, replica.person, Role.WRITER)
    fetch(replica.store, founder.store)


def packed(*runs: Run) -> Runs:
    return Runs(0, canonical.encode([run_value(run) for run in runs]))


# --- By sessions ----------------------------------------------------------------------------------------------------------------


def test_rows_asked_for_while_their_writer_leaves_arrive(meeting: Meeting) -> None:
    """The leave is pushed before the request for the rows has reached who wrote them."""
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, "a", "b", "c")
    network = Network(leaver, other, drops_outsiders=True)
    network.join(0, 1)
    for message in list(network.messages):
        if message[1] == 0:  # the leaver hears of what the other has, and the other has not asked yet
            network.messages.remove(message)
            network.carry(message)
    leave_in(network, 0)
    network.run()
    assert names(other) == ["a", "b", "c"]
    assert not is_member(other, leaver) and not network.is_joined(0, 1)


@pytest.mark.parametrize("is_answered", [True, False], ids=["which answers", "which answers nothing"])
def test_rows_asked_of_another_device_arrive_when_their_writer_leaves(meeting: Meeting, *, is_answered: bool) -> None:
    """A log is asked of one session at a time, and only the writer has the end of its own."""
    leaver, other, third = (meeting.join(name) for name in ("leaver", "other", "third"))
    meet(meeting.founder, leaver, other, third)
    write(leaver, "a")
    fetch(third.store, leaver.store)
    write(leaver, "b")
    leave(leaver)
    network = Network(leaver, other, third, drops_outsiders=True)
    network.join(1, 2)
    while not any(sender == 1 and decode_message(data).__class__ is Want for sender, _, data in network.messages):
        network.carry(network.messages.popleft())
    slow = list(network.messages)
    network.messages.clear()
    network.join(0, 1)
    network.run(200)
    assert names(other) == [] and is_member(other, leaver)
    network.messages.extend(slow if is_answered else ())
    network.run()
    assert names(other) == names(third) == ["a", "b"]
    assert not is_member(other, leaver) and not is_member(third, leaver)


def test_rows_behind_which_a_leave_was_pushed_arrive(meeting: Meeting) -> None:
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, *(f"{number:02}" for number in range(40)))
    network = Network(leaver, other, drops_outsiders=True)
    network.join(0, 1)
    network.holds_bulk = True  # no room for it in the channel
    network.run(10)
    leave_in(network, 0)
    network.run(100)
    assert names(other) == [] and is_member(other, leaver)
    network.release_bulk()
    network.run()
    assert len(names(other)) == 40 and not is_member(other, leaver)


def test_a_leave_that_names_what_nobody_has_is_taken_in_after_20_s(meeting: Meeting) -> None:
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    ghost = Cut(Kind.DATA, leaver.person.keys.device, b"e" * 16, 7, b"g" * 32)
    leaver.store.take_right(leaver.user, lambda _: encode_body(Leave(((leaver.user, (ghost,)),))))
    network = Network(leaver, other, drops_outsiders=True)
    network.join(0, 1)
    network.run(LEAVE_WAIT_MS - 1000)
    assert is_member(other, leaver)
    network.run(2000)
    assert not is_member(other, leaver) and not network.is_joined(0, 1)


# --- By messages ----------------------------------------------------------------------------------------------------------------


def parting(source: Replica, target: Replica, header: Header) -> tuple[Runs, list[Runs | Block]]:
    """The message with an act, and those with what else the target lacks."""
    runs = [Run((entry,), signature) for _, entry, _, signature in source.store.log.entries("hash = ?", (header.hash,))]  # type: ignore[arg-type]
    return packed(*runs), missing(target.store, source.store)


def taken(target: Replica, message: Runs | Block, sender: Replica) -> tuple[Parked, ...]:
    return target.store.take(message, sender.person.keys.device)[0].parked


def test_a_leave_waits_for_the_rows_of_all_devices_of_its_user(meeting: Meeting) -> None:
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, "a")
    message, before = parting(leaver, other, leave(leaver))
    (parked,) = taken(other, message, leaver)
    assert parked.is_parting and parked.missing == {tip[1] for _, tips in missing_tips(other, leaver) for tip in tips}
    for row in before[:-1]:
        other.store.take(row)
    assert taken(other, before[-1], leaver) == () and names(other) == ["a"]


def missing_tips(target: Replica, source: Replica) -> list[tuple[object, tuple[tuple[int, bytes], ...]]]:
    held = target.store.vector()
    return [(log, tips) for log, tips in source.store.vector().items() if held.get(log) != tips and log.kind is Kind.DATA]


def test_a_leave_and_the_rows_before_it_are_taken_from_one_message(meeting: Meeting) -> None:
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, "a", "b")
    leave(leaver)
    (message,) = missing(other.store, leaver.store)
    assert taken(other, message, leaver) == ()
    assert names(other) == ["a", "b"] and not is_member(other, leaver)


def test_a_leave_from_a_third_party_waits_for_nothing(meeting: Meeting) -> None:
    """Acts come before rows there, and who brings them stays."""
    leaver, other, third = (meeting.join(name) for name in ("leaver", "other", "third"))
    meet(meeting.founder, leaver, other, third)
    write(leaver, "a")
    header = leave(leaver)
    fetch(third.store, leaver.store)
    message, before = parting(third, other, header)
    assert taken(other, message, third) == () and not is_member(other, leaver)
    assert take_all(other.store, before) == [] and names(other) == ["a"]


def test_a_leave_waits_for_nothing_where_its_user_has_come_back(meeting: Meeting) -> None:
    """Else its device could bring no newcomer the acts that rest on the leave: they would all be parked."""
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, "a")
    leave(leaver)
    fetch(meeting.founder.store, leaver.store)
    admit_again(meeting, leaver)
    write(leaver, "b")
    messages = missing(other.store, leaver.store)
    assert sum((taken(other, message, leaver) for message in messages), ()) == ()
    assert names(other) == ["a", "b"] and is_member(other, leaver)


def test_a_leave_that_is_here_waits_for_nothing_when_its_sender_sends_it_again(meeting: Meeting) -> None:
    """It came by others, who had not sent the rows yet, and its user has come back."""
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, "a")
    header = leave(leaver)
    fetch(meeting.founder.store, leaver.store)
    admit_again(meeting, leaver)
    acts = missing(other.store, meeting.founder.store)[0]
    assert taken(other, acts, meeting.founder) == () and names(other) == [] and is_member(other, leaver)
    message, before = parting(leaver, other, header)
    assert taken(other, message, leaver) == ()
    assert take_all(other.store, before) == [] and names(other) == ["a"]


def test_a_leave_waits_for_no_rows_that_are_void_here(meeting: Meeting) -> None:
    """What a removal that its writer has not heard of cut off comes as headers, and never counts."""
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, "a")
    header = leave(leaver)
    meeting.founder.store.take_right(
        meeting.founder.user,
        lambda cuts: encode_body(DropDevice(leaver.user, leaver.person.keys.device, cuts(leaver.user))),
    )
    fetch(other.store, meeting.founder.store)
    message, before = parting(leaver, other, header)
    assert take_all(other.store, [row for row in before if row != message]) == []
    assert taken(other, message, leaver) == () and names(other) == []


def test_a_device_that_drops_itself_loses_nothing_either(meeting: Meeting) -> None:
    leaver, other = meeting.join("leaver", Role.ADMIN), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, "a")
    device = leaver.person.keys.device
    header, _ = leaver.store.take_right(
        leaver.user, lambda cuts: encode_body(DropDevice(leaver.user, device, cuts(leaver.user, device=device)))
    )
    message, before = parting(leaver, other, header)
    (parked,) = taken(other, message, leaver)
    assert parked.is_parting and is_member(other, leaver)
    take_all(other.store, before[:-1])
    assert taken(other, before[-1], leaver) == () and names(other) == ["a"] and not is_member(other, leaver)


def test_a_leave_with_a_large_body_waits_with_its_blocks(meeting: Meeting) -> None:
    leaver, other = meeting.join("leaver"), meeting.join("other")
    meet(meeting.founder, leaver, other)
    write(leaver, "a")
    random = Random(1)
    ghosts = [Cut(Kind.DATA, random.randbytes(32), random.randbytes(16), 1, random.randbytes(32)) for _ in range(1800)]
    ((user, real),) = leaver.store.cuts(leaver.user)
    body = encode_body(Leave(((user, tuple(sorted([*ghosts, *real]))),)))
    assert sum(map(len, split_body(body))) > INLINE_BODY_BYTES_MAX
    leaver.store.act(leaver.user, Kind.CONTROL, body)
    network = Network(leaver, other, drops_outsiders=True)
    network.join(0, 1)
    network.run(LEAVE_WAIT_MS - 1000)
    assert names(other) == ["a"] and is_member(other, leaver)
    assert rows_of(other, "_peers_staged") == 1
    network.run(2000)
    assert names(other) == ["a"] and not is_member(other, leaver)
    assert rows_of(other, "_peers_staged") == 0 and rows_of(other, "_peers_block") == len(split_body(body))


def rows_of(replica: Replica, table: str) -> object:
    return replica.store.log.connection.execute(f"SELECT count(*) FROM {table}").get
