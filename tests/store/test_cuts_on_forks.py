"""Acts that take a right, on logs that forked: what counts depends on what is known alone, not on the order it came in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from peersd.store.log import State
from peersd.testing.simulator.founding import admit
from peersd_protocol.acts import Remove, encode_body
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.roles import Role
from peersd_protocol.runs import Run
from tests.store.pools import clone, deliver, header_of, in_step, runs_of, seqs, shuffled, verdicts
from tests.store.sessions import Network
from tests.store.stores import Meeting, Replica, fetch

SEEDS = range(12)


@dataclass
class Pool:
    """What some replicas know in all.

    Attributes:
        meeting: of the group.
        runs: every run, with its body.
        replicas: those who know it.
        complete: a store that took all of it with the bodies, because what voids any of it came last.
        epochs: those of the member whom it is about.
        counted: the sequences that count in the first of them.
    """

    meeting: Meeting
    runs: list[Run]
    replicas: list[Replica]
    complete: Replica
    epochs: list[bytes]
    counted: list[int]


def pool(meeting: Meeting, victim: Replica, replicas: list[Replica], epochs: list[bytes], counted: list[int]) -> Pool:
    """All runs of some replicas, and a store that took the members' data before anything could void it."""
    runs = runs_of(*(replica.store for replica in replicas))
    complete = meeting.stranger("complete")
    taking = [run for run in runs if run.log.kind is Kind.CONTROL and run.log.device != victim.person.keys.device]
    others = [run for run in runs if run not in taking]
    for run in taking:  # in the founder's order, and as much of the data as can come before each of them
        while ready := [other for other in others if not complete.store.take(packed_of(other))[0].parked]:
            others = [other for other in others if other not in ready]
        complete.store.take(packed_of(run))
    deliver(complete.store, others)
    return Pool(meeting, runs, replicas, complete, epochs, counted)


def packed_of(run: Run):
    from tests.store.pools import packed

    return packed(run)


def removed(founder: Replica, victim: Replica) -> None:
    """The founder removes somebody, with cuts at what its store holds."""
    founder.store.take_right(founder.user, lambda cuts: encode_body(Remove(victim.user, cuts(victim.user))))


@pytest.fixture
def below(tmp_path: Path) -> Pool:
    """The victim's log forks after its second entry; the founder knows one branch, up to 4, and removes the victim."""
    meeting = Meeting(tmp_path)
    victim = meeting.join("victim")
    victim.note("1", "both")
    victim.note("2", "both")
    twin = clone(victim, tmp_path / "twin")
    victim.note("3", "here")
    victim.note("4", "here")
    for number in range(3, 6):
        twin.note(f"{number}'", "there")
    fetch(meeting.founder.store, victim.store)
    removed(meeting.founder, victim)
    victim.note("5", "beyond")
    meeting.founder.note("f", "the founder's")
    return pool(meeting, victim, [meeting.founder, victim, twin], [victim.store.epoch], [1, 2, 3, 4])


@pytest.fixture
def apart(tmp_path: Path) -> Pool:
    """The same, but the founder knows the other branch up to 4', too."""
    meeting = Meeting(tmp_path)
    victim = meeting.join("victim")
    victim.note("1", "both")
    twin = clone(victim, tmp_path / "twin")
    for number in (2, 3):
        victim.note(f"{number}", "here")
    for number in range(2, 5):
        twin.note(f"{number}'", "there")
    fetch(meeting.founder.store, victim.store)
    fetch(meeting.founder.store, twin.store)
    removed(meeting.founder, victim)
    victim.note("4", "beyond, though a tip has this sequence")
    twin.note("5'", "beyond")
    return pool(meeting, victim, [meeting.founder, victim, twin], [victim.store.epoch], [1, 2, 2, 3, 3, 4])


@pytest.fixture
def roots(tmp_path: Path) -> Pool:
    """Two branches that begin with the log: one from before the removal, one after the victim was invited again."""
    meeting = Meeting(tmp_path)
    victim = meeting.join("victim")
    twin = clone(victim, tmp_path / "twin")
    for number in (1, 2, 3):
        victim.note(f"{number}", "nobody knew of it")
    removed(meeting.founder, victim)
    admit(meeting.founder.store, meeting.founder.person, victim.person, Role.WRITER)
    fetch(twin.store, meeting.founder.store)
    for number in (1, 2):
        twin.note(f"{number}'", "a member again")
    assert twin.store.epoch == victim.store.epoch
    return pool(meeting, victim, [meeting.founder, victim, twin], [victim.store.epoch], [1, 2])


@pytest.fixture
def twice(tmp_path: Path) -> Pool:
    """Two removals at once, with cuts on different branches: what counts lies within both."""
    meeting = Meeting(tmp_path)
    admin = meeting.join("admin", Role.ADMIN)
    victim = meeting.join("victim")
    fetch(admin.store, meeting.founder.store)
    victim.note("1", "both")
    victim.note("2", "both")
    twin = clone(victim, tmp_path / "twin")
    for number in (3, 4):
        victim.note(f"{number}", "here")
    for number in (3, 4, 5):
        twin.note(f"{number}'", "there")
    fetch(meeting.founder.store, victim.store)
    fetch(admin.store, twin.store)
    removed(meeting.founder, victim)
    removed(admin, victim)
    return pool(meeting, victim, [meeting.founder, admin, victim, twin], [victim.store.epoch], [1, 2])


@pytest.mark.parametrize("name", ["below", "apart", "roots", "twice"])
def test_what_counts_does_not_depend_on_the_order_of_arrival(name: str, request: pytest.FixtureRequest) -> None:
    known: Pool = request.getfixturevalue(name)
    expected = verdicts(known.complete.store)
    assert seqs(known.complete.store, known.epochs[0]) == known.counted
    for seed in SEEDS:
        other = known.meeting.stranger(f"other{seed}")
        deliver(other.store, shuffled(known.runs, seed))
        assert verdicts(other.store) == expected, seed
        in_step(other.store, known.complete.store)
        rows = other.store.dump(), other.store.dump_clocks()
        other.store.rebuild()
        assert (other.store.dump(), other.store.dump_clocks()) == rows
        vector = other.store.vector()
        assert other.reopen().vector() == vector
        other.store.close()


def test_what_is_held_for_a_cut_alone_is_nothing_that_new_entries_rest_on(twice: Pool) -> None:
    founder, admin, victim, _ = twice.replicas
    fetch(founder.store, admin.store)
    counted = [entry for entry in runs_of(victim.store) if entry.log == LogKey(Kind.DATA, b"", entry.log.device, twice.epochs[0])]
    assert len(founder.store.vector()[counted[1].log]) == 2
    written = founder.note("f", "the founder's").entries[-1]
    assert header_of(founder.store, written.hash).deps == (counted[1].last.hash,)


def test_what_only_an_entry_names_that_is_held_for_a_cut_alone_is_still_rested_on(tmp_path: Path) -> None:
    """It was in nobody's past then: what was written after it could have a stamp below its own."""
    meeting = Meeting(tmp_path)
    founder, admin, victim, writer = (
        meeting.founder,
        meeting.join("admin", Role.ADMIN),
        meeting.join("victim"),
        meeting.join("writer"),
    )
    for replica in (admin, victim):
        fetch(replica.store, founder.store)
    first = victim.note("1", "within both cuts").entries[-1].hash
    fetch(founder.store, victim.store)
    named = writer.note("w", "by the writer").entries[-1].hash
    fetch(victim.store, writer.store)
    beyond = victim.note("2", "beyond the founder's cut").entries[-1].hash
    fetch(admin.store, victim.store)
    removed(founder, victim)
    removed(admin, victim)
    fetch(founder.store, admin.store)
    assert [found.state for found in map(founder.store.log.find, (named, beyond)) if found] == [State.APPLIED, State.ANCESTOR]
    written = founder.note("f", "after all of it").entries[-1].hash
    assert set(header_of(founder.store, written).deps) == {first, named}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["below", "apart", "roots", "twice"])
def test_replicas_that_meet_in_any_order_end_alike(name: str, seed: int, request: pytest.FixtureRequest) -> None:
    known: Pool = request.getfixturevalue(name)
    random = Random(seed)
    replicas = [*known.replicas, known.meeting.stranger("late"), known.meeting.stranger("later")]
    pairs = [(target, source) for target in replicas for source in replicas if target is not source]
    for _ in range(4):
        random.shuffle(pairs)
        for target, source in pairs:
            fetch(target.store, source.store)
    for replica in replicas:
        in_step(replica.store, known.replicas[0].store)
        assert seqs(replica.store, known.epochs[0]) == known.counted


@pytest.mark.parametrize("name", ["below", "apart", "roots", "twice"])
def test_sessions_bring_all_to_the_same(name: str, request: pytest.FixtureRequest) -> None:
    known: Pool = request.getfixturevalue(name)
    replicas = [*known.replicas, known.meeting.stranger("late")]
    network = Network(*replicas)
    for number in range(1, len(replicas)):  # each knows the next
        network.join(number - 1, number)
    network.run()
    for replica in replicas:
        in_step(replica.store, known.replicas[0].store)
        assert seqs(replica.store, known.epochs[0]) == known.counted
    for number in range(1, len(replicas)):
        assert network.nodes[number].machine.is_equal(number - 1)
