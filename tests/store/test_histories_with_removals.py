"""Random histories of stores whose users are removed, invited again, demoted and copied: all end alike (DESIGN 6, 10)."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from peersd.errors import PeersdError
from peersd.store.log import State
from peersd.store.store import FindCuts
from peersd.testing.simulator.founding import admit
from peersd_protocol.acts import Ban, DropDevice, Leave, Remove, SetRole, Settings, Unban, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.membership_acts import MembershipBody
from peersd_protocol.roles import Role
from tests.store.pools import clone, in_step
from tests.store.sessions import Network
from tests.store.stores import Meeting, Replica, missing, take_all

SEEDS = (0, 1, 2, 3, 14, 16, 37, 55, 63, 66)
"""Some, those that once failed, and some in which a log both forks and lacks bodies."""

STEPS = 100


class History:
    """A group of six devices, two of which get a twin in time."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = Random(seed)
        self._folder = folder
        self.meeting = Meeting(folder)
        roles = {"owner": Role.OWNER, "admin": Role.ADMIN, "moderator": Role.MODERATOR, "ann": Role.WRITER, "ben": Role.WRITER}
        self.replicas = [self.meeting.founder, *(self.meeting.join(name, role) for name, role in roles.items())]
        self.writes = 0
        self.twins = 0

    def step(self) -> None:
        """Does one thing that may happen."""
        steps = [self.write] * 6 + [self.meet] * 5 + [self.break_off] * 3 + [self.act] * 3 + [self.overrule] * 2 + [self.reopen]
        if self.twins < 2:
            steps.append(self.copy)
        step = self.random.choice(steps)
        try:
            step()
        except PeersdError as refused:
            if refused.code != "not_allowed":
                raise

    def any(self) -> Replica:
        return self.random.choice(self.replicas)

    def write(self) -> None:
        replica = self.any()
        for _ in range(self.random.randint(1, 3)):
            self.writes += 1
            replica.note(f"{self.random.randint(0, 15)}", f"{self.writes} by {replica.person.name}")

    def meet(self) -> None:
        """What rests on a body that the source has not got itself may have to wait."""
        target, source = self.any(), self.any()
        take_all(target.store, missing(target.store, source.store))

    def break_off(self) -> None:
        """A link that breaks in the middle: acts come first, and maybe no data at all."""
        target, source = self.any(), self.any()
        messages = missing(target.store, source.store)
        for message in messages[: self.random.randint(0, len(messages))]:
            target.store.take(message)

    def act(self) -> None:
        by, whom = self.random.choice(self.replicas[:4]), self.any()
        user, device = whom.user, whom.person.keys.device
        role = self.random.choice([Role.READER, Role.WRITER, Role.MODERATOR, Role.ADMIN])

        def taking(cuts: FindCuts) -> bytes:
            kinds = [Kind.CONTROL] if role >= Role.WRITER else None
            acts: list[MembershipBody] = [
                Remove(user, cuts(user)),
                Ban(user, "", cuts(user)),
                DropDevice(user, device, cuts(user, device=device)),
                SetRole(user, role, cuts(user, kinds)),
            ]
            return encode_body(Leave(cuts(user)) if by is whom else self.random.choice(acts))

        match self.random.randint(0, 5):
            case 0 | 1 | 2:
                by.store.take_right(by.user, taking)
            case 3:
                by.store.act(by.user, Kind.CONTROL, encode_body(SetRole(user, role)))
            case 4:
                by.store.act(by.user, Kind.CONTROL, encode_body(Unban(user)))
                admit(by.store, by.person, whom.person, Role.WRITER)
            case _:
                by.store.act(by.user, Kind.CONTROL, encode_body(Settings(name=f"by {by.person.name}")))
                admit(by.store, by.person, whom.person, Role.WRITER)

    def overrule(self) -> None:
        """The admin removes somebody, whose work goes round as void; the founder, who knows nothing of it, removes the admin."""
        founder, _, admin, *others = self.replicas
        victim = self.random.choice(others)
        fetch_all(founder, admin, victim)
        self.writes += 1
        victim.note("disputed", f"{self.writes} by {victim.person.name}")
        admin.store.take_right(admin.user, lambda cuts: encode_body(Remove(victim.user, cuts(victim.user))))
        for _ in range(2):
            other = self.any()
            fetch_all(other, admin)
            take_all(other.store, missing(other.store, victim.store))
        self.write()
        founder.store.take_right(founder.user, lambda cuts: encode_body(Remove(admin.user, cuts(admin.user))))
        admit(founder.store, founder.person, admin.person, Role.ADMIN)

    def reopen(self) -> None:
        self.any().reopen()

    def copy(self) -> None:
        replica = self.any()
        replica.store.vector()  # so that the mark is on disk
        self.twins += 1
        self.replicas.append(clone(replica, self._folder / f"twin{self.twins}"))

    def finish(self) -> None:
        """All meet until nothing is left to be told."""
        for _ in range(6):
            pairs = [(target, source) for target in self.replicas for source in self.replicas if target is not source]
            self.random.shuffle(pairs)
            for target, source in pairs:
                take_all(target.store, missing(target.store, source.store))
            if all(replica.store.vector() == self.replicas[0].store.vector() for replica in self.replicas):
                return

    def finish_over_sessions(self) -> None:
        """The same by the machine: sessions along a random tree, opened one after the other."""
        network = Network(*self.replicas)
        for number in range(1, len(self.replicas)):
            network.join(self.random.randrange(number), number)
            network.run(self.random.choice([0, 100, 20_000]))
        network.run(60_000)
        assert all(replica.store.vector() == self.replicas[0].store.vector() for replica in self.replicas)


def fetch_all(target: Replica, *sources: Replica) -> None:
    for source in sources:
        take_all(target.store, missing(target.store, source.store))


def run(folder: Path, seed: int) -> History:
    history = History(folder, seed)
    for _ in range(STEPS):
        history.step()
    (history.finish_over_sessions if seed % 2 else history.finish)()
    first = history.replicas[0]
    for replica in history.replicas:
        in_step(replica.store, first.store)
        lacking = [state for _, _, state, _ in replica.store.log.all_entries() if state is State.MISSING]
        assert lacking == []  # who wrote an entry keeps its body
        rows = replica.store.dump(), replica.store.dump_clocks()
        replica.store.rebuild()
        assert (replica.store.dump(), replica.store.dump_clocks()) == rows
        heads = set(replica.store.log.data_heads)
        replica.store.log.refresh_heads(of_data=True)
        assert heads >= replica.store.log.data_heads
        vector = replica.store.vector()
        assert replica.reopen().vector() == vector
    return history


@pytest.mark.parametrize("seed", SEEDS)
def test_all_replicas_end_alike_whatever_was_removed_meanwhile(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed)


def test_these_histories_reach_the_cases_that_matter(tmp_path: Path) -> None:
    reached: set[str] = set()
    for seed in SEEDS[3:5]:
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        history = History(folder, seed)
        for _ in range(STEPS):
            history.step()
            reached |= {case for replica in history.replicas for case in cases(replica)}
    assert reached == {"forked", "forked at its first entry", "lacks bodies", "forked and lacks bodies", "holds what is void"}


def cases(replica: Replica) -> set[str]:
    rows = list(replica.store.log.logs())
    states = {state for (state,) in replica.store.log.connection.execute("SELECT DISTINCT state FROM _peers_entry")}
    return {
        case
        for case, is_met in {
            "forked": any(row.forked for row in rows),
            "forked at its first entry": any(row.forked and row.branches[-1].first == 1 for row in rows),
            "lacks bodies": any(row.missing for row in rows),
            "forked and lacks bodies": any(row.forked and row.missing for row in rows),
            "holds what is void": State.ANCESTOR in states,
        }.items()
        if is_met
    }
