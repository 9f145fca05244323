"""Entries that came void, so that their bodies were dropped, and count again: told of and shown once the bodies are here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from peersd.store.batch import Request
from peersd.store.client_sql import Statement
from peersd.store.log import State
from peersd.store.store import Write
from peersd_protocol import hlc
from peersd_protocol.acts import Remove, SetRole, encode_body
from peersd_protocol.blocks import split_body
from peersd_protocol.changesets import Changeset, TableChangeset, encode
from peersd_protocol.constants import MIB
from peersd_protocol.entries import Header, Kind, LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import Block, Runs, Want
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body, BodyForm, Entry, Run
from tests.store.pools import blocks_of, clone, deliver, entry_of, in_step, packed, runs_of, seqs, shuffled, verdicts
from tests.store.sessions import Network
from tests.store.stores import Meeting, Replica, assert_alike, fetch, meet, missing, stream, take_all


def data_log(replica: Replica) -> LogKey:
    return LogKey(Kind.DATA, b"", replica.person.keys.device, replica.store.epoch)


def remove(by: Replica, whom: Replica) -> None:
    by.store.take_right(by.user, lambda cuts: encode_body(Remove(whom.user, cuts(whom.user))))


def take_acts(target: Replica, source: Replica) -> None:
    """Only the acts of what `target` lacks, as when the link breaks before the data."""
    runs = [run for run in runs_of(source.store) if run.log.kind is not Kind.DATA]
    deliver(target.store, runs)


def take_data(target: Replica, source: Replica) -> None:
    """The data of a store that has not heard of any act that `target` knows more."""
    deliver(target.store, [run for run in runs_of(source.store) if run.log.kind is Kind.DATA])


def titles(replica: Replica) -> list[object]:
    return [row[1] for row in replica.notes()]


def tip_seqs(replica: Replica, log: LogKey) -> list[int]:
    return [seq for seq, _ in replica.store.vector().get(log, ())]


@dataclass
class Fallen:
    """An admin removed the writer, whose later entries then came void to the other; the founder has removed the admin since.

    Attributes:
        founder, admin, writer, other: who takes part. The other knows of the first removal alone.
        log: the writer's.
        begun_hlc: a stamp before what is disputed.
    """

    founder: Replica
    admin: Replica
    writer: Replica
    other: Replica
    log: LogKey
    begun_hlc: int

    def fall(self) -> None:
        """The other learns of the founder's act: what the admin did is void now."""
        take_acts(self.other, self.founder)
        assert self.other.store.state.role_of(self.writer.user) is Role.WRITER


def begun(tmp_path: Path) -> Fallen:
    """Before the writer writes what the admin does not know of."""
    meeting = Meeting(tmp_path)
    admin, writer, other = meeting.join("admin", Role.ADMIN), meeting.join("writer"), meeting.join("other")
    writer.note("1", "first")
    meet(meeting.founder, admin, writer, other)
    return Fallen(meeting.founder, admin, writer, other, data_log(writer), hlc.pack(meeting.clock(), 0))


def decided(cast: Fallen) -> Fallen:
    """After it: the admin removes the writer, the founder the admin, and the other has heard of the first."""
    remove(cast.admin, cast.writer)
    remove(cast.founder, cast.admin)
    take_acts(cast.other, cast.admin)
    return cast


@pytest.fixture
def fallen(tmp_path: Path) -> Fallen:
    cast = begun(tmp_path)
    for number in (2, 3, 4):
        cast.writer.note(f"{number}", f"title {number}")
    decided(cast)
    take_data(cast.other, cast.writer)
    return cast


def test_an_entry_that_counts_again_is_not_told_of_before_its_body_is_here(fallen: Fallen) -> None:
    assert seqs(fallen.other.store, fallen.writer.store.epoch, [State.VOID]) == [2, 3, 4]
    fallen.fall()
    assert seqs(fallen.other.store, fallen.writer.store.epoch, [State.MISSING]) == [2, 3, 4]
    assert tip_seqs(fallen.other, fallen.log) == [1]
    assert titles(fallen.other) == ["first"]
    fallen.other.reopen()
    assert tip_seqs(fallen.other, fallen.log) == [1] and titles(fallen.other) == ["first"]


def test_it_is_asked_for_from_below_the_first_body_that_lacks(fallen: Fallen) -> None:
    vector = fallen.writer.store.vector()
    assert [item.log for item in fallen.other.store.compare(vector).wants if item.log == fallen.log] == []  # void, and known
    fallen.fall()
    (item,) = [item for item in fallen.other.store.compare(vector).wants if item.log == fallen.log]
    assert item.tip == vector[fallen.log][0]
    assert [seq for seq, _ in item.have] == [1]


def test_its_body_comes_with_the_run_and_it_counts_like_any_other(fallen: Fallen) -> None:
    fallen.fall()
    other = fallen.other.store
    take_acts(fallen.writer, fallen.founder)
    messages = missing(other, fallen.writer.store)
    before = other.log.position
    outcomes = [other.take(message) for message in messages]
    assert other.log.position == before  # nothing is added, and nothing changes its place
    (ingested, commit) = outcomes[-1]
    assert commit is not None and [entry.seq for entry in commit.entries] == [2, 3, 4]
    assert commit.message is None and commit.vector == other.vector()
    assert ingested.held == {fallen.log: fallen.writer.store.vector()[fallen.log][0]} and ingested.new
    assert titles(fallen.other) == ["first", "title 2", "title 3", "title 4"]
    assert seqs(other, fallen.writer.store.epoch, [State.APPLIED]) == [1, 2, 3, 4]
    in_step(other, fallen.writer.store)
    assert_alike(fallen.other, fallen.writer)


def test_a_cut_made_meanwhile_leaves_what_lacks_its_body(fallen: Fallen) -> None:
    fallen.fall()
    end = fallen.writer.store.vector()[fallen.log][0]
    ((_, tips),) = fallen.other.store.cuts(fallen.writer.user)
    assert [(tip.seq, tip.hash) for tip in tips if tip.kind is Kind.DATA] == [end]


def test_a_body_that_is_here_already_is_not_taken_twice(fallen: Fallen) -> None:
    fallen.fall()
    for _ in range(2):
        take_data(fallen.other, fallen.writer)
        assert titles(fallen.other) == ["first", "title 2", "title 3", "title 4"]
    (run,) = [run for run in runs_of(fallen.writer.store) if run.last.hash == fallen.writer.store.vector()[fallen.log][0][1]]
    ingested, commit = fallen.other.store.take(packed(run))
    assert commit is None and not ingested.new


def test_bodies_that_come_in_another_order_are_shown_as_far_as_none_lacks(fallen: Fallen) -> None:
    fallen.fall()
    second, third, fourth = [run for run in runs_of(fallen.writer.store) if run.log == fallen.log][1:]
    store = fallen.other.store
    assert store.take(packed(fourth))[1] is None
    assert tip_seqs(fallen.other, fallen.log) == [1] and titles(fallen.other) == ["first"]
    _, commit = store.take(packed(second))
    assert commit is not None and [entry.seq for entry in commit.entries] == [2]
    assert tip_seqs(fallen.other, fallen.log) == [2]
    _, commit = store.take(packed(third))
    assert commit is not None and [entry.seq for entry in commit.entries] == [3, 4]
    assert tip_seqs(fallen.other, fallen.log) == [4]
    in_step(store, fallen.writer.store)


def test_what_follows_a_body_that_lacks_waits_for_it(fallen: Fallen) -> None:
    fallen.fall()
    take_acts(fallen.writer, fallen.founder)
    late = fallen.writer.note("5", "title 5").entries[-1]
    (run,) = [run for run in runs_of(fallen.writer.store) if run.last.hash == late.hash]
    ingested, commit = fallen.other.store.take(packed(run))
    assert commit is None and ingested.void == (late.hash,) and ingested.held == {}
    assert seqs(fallen.other.store, fallen.writer.store.epoch, [State.MISSING]) == [2, 3, 4, 5]
    assert tip_seqs(fallen.other, fallen.log) == [1]
    fetch(fallen.other.store, fallen.writer.store)
    assert titles(fallen.other)[-1] == "title 5"
    in_step(fallen.other.store, fallen.writer.store)


def next_by_hand(cast: Fallen, raw: bytes) -> Run:
    """The writer's next entry with a body that its own store would never make."""
    seq, prev = cast.writer.store.vector()[cast.log][0]
    last = cast.writer.store.log.find(prev)
    assert last is not None
    body = Body.of_blocks(split_body(raw))
    group, device, epoch = cast.founder.store.group, cast.log.device, cast.log.epoch
    header = Header(group, Kind.DATA, cast.writer.user, device, epoch, seq + 1, prev, last.hlc + 1, (), (), body.hash)
    return Run((Entry(header, body),), header.sign(cast.writer.person.keys.signing))


@pytest.mark.parametrize("raw", [b"\xff\xff", b"\x93\x01\x90\x07"])
def test_a_bad_body_after_one_that_lacks_is_refused_as_it_would_be_without(fallen: Fallen, raw: bytes) -> None:
    fallen.fall()
    take_acts(fallen.writer, fallen.founder)
    run = next_by_hand(fallen, raw)
    codes = set()
    for store in (fallen.other.store, fallen.writer.store):
        with pytest.raises(RemoteProtocolError) as refused:
            store.take(packed(run))
        codes.add(refused.value.close_code)
    assert len(codes) == 1


UNKNOWN_TABLE = Changeset((TableChangeset((b"?" * 16, 0), deletes=(["a"],)),))


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"\xff\xff", CloseCode.MALFORMED), (encode(UNKNOWN_TABLE), CloseCode.BAD_BODY)],
    ids=["malformed", "unknown"],
)
def test_a_bad_body_for_an_entry_that_lacks_it_is_refused_and_nothing_is_kept(
    tmp_path: Path, raw: bytes, code: CloseCode
) -> None:
    cast = begun(tmp_path)
    run = next_by_hand(cast, raw)
    decided(cast)
    cast.other.store.take(packed(run))
    cast.fall()
    assert seqs(cast.other.store, cast.log.epoch, [State.MISSING]) == [2]
    with pytest.raises(RemoteProtocolError) as refused:
        cast.other.store.take(packed(run))
    assert refused.value.close_code is code
    assert seqs(cast.other.store, cast.log.epoch, [State.MISSING]) == [2] and tip_seqs(cast.other, cast.log) == [1]


def test_who_writes_meanwhile_rests_on_nothing_that_it_could_not_pass_on(fallen: Fallen) -> None:
    fallen.fall()
    fallen.other.note("o", "the other's")
    newcomer = Replica(fallen.other.path.parent / "newcomer", fallen.admin.person, fallen.admin.context.wall_ms)
    newcomer.path.parent.mkdir()
    newcomer.create(fallen.other.store.group)
    assert take_all(newcomer.store, missing(newcomer.store, fallen.other.store)) == []
    assert newcomer.store.vector() == fallen.other.store.vector()
    assert titles(newcomer) == ["first", "the other's"]
    fetch(newcomer.store, fallen.writer.store)
    fetch(fallen.other.store, fallen.writer.store)
    in_step(newcomer.store, fallen.other.store)
    newcomer.store.close()


@pytest.mark.parametrize("count", [3, 300])
def test_what_rests_on_entries_without_their_bodies_is_taken_in_by_who_never_had_these(tmp_path: Path, count: int) -> None:
    """Nobody is told of them, but what was written while they were void rests on them, and must reach everybody all the same."""
    cast = begun(tmp_path)
    for number in range(count):
        cast.writer.note(f"{number + 2}", "the writer's")
    fetch(cast.founder.store, cast.writer.store)
    cast.founder.note("f", "the founder's")
    decided(cast)
    take_data(cast.other, cast.writer)
    take_data(cast.other, cast.founder)
    cast.other.note("o", "the other's")
    cast.fall()
    lacking = list(range(2, count + 2))
    assert seqs(cast.other.store, cast.log.epoch, [State.MISSING]) == lacking
    newcomer = Replica(tmp_path / "newcomer", cast.admin.person, cast.admin.context.wall_ms)
    newcomer.path.parent.mkdir()
    newcomer.create(cast.other.store.group)
    network = Network(cast.other, newcomer)
    network.join(0, 1)
    network.run(60_000)
    assert titles(newcomer) == ["first", "the founder's", "the other's"]
    assert seqs(newcomer.store, cast.log.epoch, [State.MISSING]) == lacking
    assert newcomer.store.vector() == cast.other.store.vector()
    for replica in (newcomer, cast.other):
        fetch(replica.store, cast.writer.store)
    in_step(newcomer.store, cast.other.store)
    newcomer.store.close()


def test_what_only_an_entry_that_lacks_its_body_rests_on_is_still_named(tmp_path: Path) -> None:
    cast = begun(tmp_path)
    dep = cast.founder.note("f", "the founder's").entries[-1]
    fetch(cast.writer.store, cast.founder.store)
    cast.writer.note("2", "rests on it")
    decided(cast)
    take_data(cast.other, cast.founder)
    take_data(cast.other, cast.writer)
    cast.fall()
    own = cast.other.note("o", "the other's").entries[-1]
    entry = entry_of(cast.other.store, own.hash)
    tip = cast.other.store.vector()[cast.log][0][1]
    assert set(entry.header.deps) == {dep.hash} and tip != dep.hash  # whose own past has the writer's first entry


def test_a_branch_that_lacks_its_bodies_is_not_sent_along_with_another(tmp_path: Path) -> None:
    cast = begun(tmp_path)
    twin = clone(cast.writer, tmp_path / "twin")
    for number in (2, 3):
        cast.writer.note(f"{number}", "here")
        twin.note(f"{number}'", "there")
    fetch(cast.admin.store, twin.store)
    decided(cast)
    for replica in (twin, cast.writer):
        take_data(cast.other, replica)
    cast.fall()
    assert tip_seqs(cast.other, cast.log) == [3] and titles(cast.other) == ["first", "there", "there"]
    assert seqs(cast.other.store, cast.log.epoch, [State.MISSING]) == [2, 3]
    fetch(cast.founder.store, cast.other.store)
    assert seqs(cast.founder.store, cast.log.epoch) == [1, 2, 3]
    fetch(cast.other.store, cast.writer.store)
    fetch(cast.founder.store, cast.other.store)
    assert tip_seqs(cast.founder, cast.log) == [3, 3] and len(titles(cast.founder)) == 5
    in_step(cast.founder.store, cast.other.store)


def test_it_is_void_again_by_another_act_and_its_body_is_not_taken_any_more(fallen: Fallen) -> None:
    fallen.fall()
    remove(fallen.founder, fallen.writer)
    take_acts(fallen.other, fallen.founder)
    assert seqs(fallen.other.store, fallen.log.epoch, [State.VOID, State.ANCESTOR]) == [2, 3, 4]
    take_data(fallen.other, fallen.writer)
    for _, entry, _, _ in fallen.other.store.log.all_entries():
        if entry.header.log == fallen.log and entry.header.seq > 1:
            assert entry.body.form is BodyForm.WITHHELD
    in_step(fallen.other.store, fallen.founder.store)


# --- Cuts inside a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cut_inside(tmp_path: Path) -> Fallen:
    """The writer's second to fifth entries are one run; a restored admin's cut falls after the third."""
    cast = begun(tmp_path)
    insert = "INSERT INTO note (id, title) VALUES (?, ?)"
    requests = [Request([Statement(insert, (f"{at}", f"title {at}"))], float("inf")) for at in range(2, 6)]
    _, commit = cast.writer.store.write([Write(cast.writer.user, request) for request in requests])
    assert commit is not None and len(commit.entries) == 4
    third = commit.entries[1]

    def body(cuts):
        ((user, tips),) = cuts(cast.writer.user)
        named = tuple(replace(tip, seq=third.seq, hash=third.hash) for tip in tips if tip.kind is Kind.DATA)
        return encode_body(Remove(user, ((user, named),)))

    cast.admin.store.take_right(cast.admin.user, body)
    remove(cast.founder, cast.admin)
    take_acts(cast.other, cast.admin)
    take_data(cast.other, cast.writer)
    return cast


def test_a_run_whose_end_lacks_its_bodies_is_sent_with_the_headers_alone(cut_inside: Fallen) -> None:
    cast = cut_inside
    assert tip_seqs(cast.other, cast.log) == [3]
    cast.fall()
    assert tip_seqs(cast.other, cast.log) == [3]
    assert seqs(cast.other.store, cast.log.epoch, [State.MISSING]) == [4, 5]
    take_acts(cast.founder, cast.other)
    assert take_all(cast.founder.store, missing(cast.founder.store, cast.other.store)) == []
    assert seqs(cast.founder.store, cast.log.epoch, [State.MISSING]) == [4, 5]
    assert cast.founder.store.vector() == cast.other.store.vector()
    for replica in (cast.founder, cast.other):
        fetch(replica.store, cast.writer.store)
        assert titles(replica) == ["first", "title 2", "title 3", "title 4", "title 5"]
    in_step(cast.founder.store, cast.other.store)


def test_a_sender_that_knows_less_acts_is_not_blamed_for_a_body_that_it_does_not_have(cut_inside: Fallen) -> None:
    cast = cut_inside
    before = cast.founder.store.vector()
    assert take_all(cast.founder.store, missing(cast.founder.store, cast.other.store)) == []
    assert cast.founder.store.vector() != before
    assert tip_seqs(cast.founder, cast.log) == [3]


# --- Detached bodies ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Fallen:
    cast = begun(tmp_path)
    cast.writer.note("2", "3 MiB", Random(1).randbytes(3 * MIB))
    cast.writer.note("3", "after")
    decided(cast)
    for run in [run for run in runs_of(cast.writer.store) if run.log == cast.log]:
        cast.other.store.take(packed(run))
        take_all(cast.other.store, blocks_of(cast.writer.store, run.last.hash))
    assert seqs(cast.other.store, cast.log.epoch, [State.VOID]) == [2, 3]
    return cast


def blocks_here(cast: Fallen) -> int:
    count = cast.other.store.log.connection.execute("SELECT count(*) FROM _peers_block").get
    assert isinstance(count, int)
    return count


def test_a_detached_body_that_lacks_is_staged_block_by_block_and_shown_whole(large: Fallen) -> None:
    assert blocks_here(large) == 0
    large.fall()
    messages = missing(large.other.store, large.writer.store)
    assert [type(message) for message in messages[:2]] == [Runs, Block]
    take_all(large.other.store, messages[:6])
    assert blocks_here(large) == 5 and titles(large.other) == ["first"]
    large.other.reopen()
    comparison = large.other.store.compare(large.writer.store.vector())
    assert [count for _, count in comparison.staged] == [5]
    rest = stream(large.writer.store, Want(comparison.wants, comparison.staged))
    assert next(message.index for message in rest if isinstance(message, Block)) == 5
    assert take_all(large.other.store, rest) == []
    assert titles(large.other) == ["first", "3 MiB", "after"]
    in_step(large.other.store, large.writer.store)
    assert_alike(large.other, large.writer)


def test_the_blocks_of_an_entry_that_becomes_void_while_they_come_are_dropped(large: Fallen) -> None:
    large.fall()
    messages = missing(large.other.store, large.writer.store)
    blocks = [message for message in messages if isinstance(message, Block)]
    take_all(large.other.store, messages[:8])
    remove(large.founder, large.writer)
    take_acts(large.other, large.founder)
    take_all(large.other.store, blocks[7:])
    assert blocks_here(large) == 0
    assert seqs(large.other.store, large.log.epoch, [State.MISSING]) == []


def test_the_body_of_an_entry_that_was_voided_later_is_kept_through_whatever_comes(large: Fallen) -> None:
    """The writer itself has it, learns that it is void, and is sent it again."""
    take_acts(large.writer, large.admin)
    assert titles(large.writer) == ["first"]
    for run in [run for run in runs_of(large.writer.store) if run.log == large.log]:
        take_all(large.writer.store, [packed(run), *blocks_of(large.writer.store, run.last.hash)])
    take_acts(large.writer, large.founder)
    assert titles(large.writer) == ["first", "3 MiB", "after"]


# --- Over sessions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fallen", "cut_inside", "large"])
def test_a_session_that_brings_the_act_brings_the_bodies_too(name: str, request: pytest.FixtureRequest) -> None:
    """The other has the entries as void when their tip is named; only later messages of the session tell that they count."""
    cast: Fallen = request.getfixturevalue(name)
    take_acts(cast.writer, cast.admin)
    take_acts(cast.writer, cast.founder)
    network = Network(cast.writer, cast.other)
    network.join(0, 1)
    network.run(2_000)
    assert seqs(cast.other.store, cast.log.epoch, [State.MISSING]) == []
    in_step(cast.other.store, cast.writer.store)
    assert all(node.machine.is_equal(1 - node.number) for node in network.nodes)


@pytest.mark.parametrize("name", ["fallen", "cut_inside", "large"])
def test_a_session_brings_the_bodies_once_the_act_comes_by_another(name: str, request: pytest.FixtureRequest) -> None:
    cast: Fallen = request.getfixturevalue(name)
    network = Network(cast.writer, cast.other, cast.founder, cast.admin)
    for one, other in ((0, 1), (1, 3)):
        network.join(one, other)
    before = tip_seqs(cast.other, cast.log)
    network.run()
    assert tip_seqs(cast.writer, cast.log) == before  # the writer has learnt that it is removed
    network.join(1, 2)
    network.run(2_000)
    for replica in (cast.writer, cast.founder, cast.admin):
        assert seqs(replica.store, cast.log.epoch, [State.MISSING]) == []
        in_step(replica.store, cast.other.store)


# --- Any order ------------------------------------------------------------------------------------------------------------------


def new_acts(of: Replica, to: Replica) -> list[Run]:
    """The runs of acts that one store has and the other one lacks."""
    known = {entry.header.hash for run in runs_of(to.store) for entry in run.entries}
    return [run for run in runs_of(of.store) if run.last.hash not in known]


def come(network: Network, number: int, runs: list[Run]) -> None:
    """Somebody else brings these to a node."""
    node = network.nodes[number]
    _, commit = node.store.take(packed(*runs))
    node.tell(commit, 99)


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_body_of_what_came_void_is_asked_of_who_only_sent_it(tmp_path: Path, goes_on: bool) -> None:
    """To its writer the act that ended it came together with what ended that act, so it has nothing to say of its log."""
    cast = begun(tmp_path)
    network = Network(cast.writer, cast.other, drops_outsiders=True)
    network.join(0, 1)
    network.run()
    cast.admin.store.take_right(
        cast.admin.user, lambda cuts: encode_body(SetRole(cast.writer.user, Role.READER, cuts(cast.writer.user, None)))
    )
    ends = new_acts(cast.admin, cast.writer)
    remove(cast.founder, cast.admin)
    falls = new_acts(cast.founder, cast.writer)
    come(network, 1, ends)
    slow = list(network.messages)
    network.messages.clear()
    network.nodes[0].tell(cast.writer.note("2", "two"))
    while network.messages:
        network.carry(network.messages.popleft())
    assert seqs(cast.other.store, cast.log.epoch, [State.VOID]) == [2]
    come(network, 0, ends + falls)
    network.messages.extend(slow)
    network.run(600_000)
    if goes_on:
        network.nodes[0].tell(cast.writer.note("3", "three"))
        network.run(600_000)
    assert titles(cast.other) == titles(cast.writer)
    assert all(node.machine.is_equal(1 - node.number) for node in network.nodes)


@pytest.mark.parametrize(("name", "disputed_runs"), [("fallen", 5), ("cut_inside", 3)])
def test_whatever_the_order_the_same_counts_and_a_holder_of_the_bodies_makes_all_alike(
    name: str, disputed_runs: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cast: Fallen = request.getfixturevalue(name)
    runs = runs_of(cast.writer.store, cast.founder.store, cast.admin.store)
    disputed = [run for run in runs if run.first.hlc > cast.begun_hlc]
    assert len(disputed) == disputed_runs
    for replica in (cast.admin, cast.founder):
        take_acts(cast.writer, replica)
    expected = verdicts(cast.writer.store)
    lacking = set()
    for seed in range(24):
        folder = tmp_path / f"order{seed}"
        folder.mkdir()
        other = Replica(folder, cast.other.person, cast.other.context.wall_ms)
        other.create(cast.founder.store.group)
        other.store.take(packed(*(run for run in runs if run not in disputed)))
        deliver(other.store, shuffled(disputed, seed))
        assert verdicts(other.store) == expected
        lacking.add(len(seqs(other.store, cast.log.epoch, [State.MISSING])))
        in_step(other.store, cast.writer.store)
        other.store.close()
    assert len(lacking) > 1  # the orders differ in what they made missing
