"""The verdict on a group when all is over: each file by itself, the members' files together, and those of whoever is out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peersd.testing.simulator import checks, stored
from peersd.testing.simulator.admitted import Admitted
from peersd.testing.simulator.beliefs import Beliefs, Placed
from peersd.testing.simulator.checkers import Checker
from peersd.testing.simulator.checks import Acknowledged, Replicated
from peersd.testing.simulator.entries import Holding, acts_of, holdings_of, is_data
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.statements import marker_of
from peersd_protocol.entries import Header


class Verdict:
    """The checks of one group.

    Args:
        schedule: of the simulation.
        placed: the devices that have a file of it.
        names: of all groups.
        acknowledged: what clients were told of.
    """

    def __init__(
        self, schedule: Schedule, placed: Sequence[Placed], names: Sequence[str], acknowledged: Sequence[Acknowledged]
    ) -> None:
        self._schedule = schedule
        self._placed = placed
        self._markers = {name: [marker_of(name)] for name in names}
        self._acknowledged = acknowledged
        self._beliefs = Beliefs(placed)
        self._holdings = {device.name: holdings_of(replica.store) for device, replica in placed}
        self._everything: Mapping[bytes, Holding] = {
            hash_: held for holdings in self._holdings.values() for hash_, held in holdings.items()
        }
        self._replicated: dict[str, Replicated] = {}
        self._amounts = checks.Amounts()
        self._signed: set[tuple[bytes, bytes]] = set()
        self._data: Mapping[bytes, Header] = {
            hash_: held.header for hash_, held in self._everything.items() if is_data(held.header)
        }

    def check(self) -> int:
        """Looks at everything; returns the number of rows that the members have.

        Raises:
            SimulationFailed: something that must hold did not.
        """
        for placed in self._placed:
            self._check_file(placed)
        wrong = stored.check_sequence(held.header for held in self._everything.values())
        if wrong is not None:
            raise self._schedule.fail(Checker.SEQUENCE, f"{self._placed[0][1].name}: {wrong}")
        parts = self._beliefs.parts()
        if len(parts) > 1:
            told = " | ".join(" ".join(device.name for device, _ in part) for part in parts)
            self._schedule.note("", f"{parts[0][0][1].name} is in parts: {told}")
        for part in parts:  # what lacks its body has no rows: this is told by its cause
            self._check_bodies(part)
            self._check_alike(part)
        for placed in self._placed:
            self._check_sense(placed)
        rows = sum(self._check_part(part) for part in parts)
        if not self._beliefs.is_split:
            self._check_outsiders()
        self._reopen(parts)
        return rows

    def _must_not(self, placed: Placed, checker: Checker, wrong: str | None) -> None:
        device, replica = placed
        if wrong is not None:
            raise self._schedule.fail(checker, f"{device.name} {replica.name}: {wrong}")

    def _check_file(self, placed: Placed) -> None:
        """What holds of every file, whoever it belongs to."""
        device, replica = placed
        held, file = self._holdings[device.name], replica.file
        own = [entry for entry in self._acknowledged if entry.device == device.name]
        self._must_not(placed, Checker.INTEGRITY, checks.check_file(file))
        self._must_not(placed, Checker.CHAIN, stored.check_chain(replica.store, self._signed))
        self._must_not(placed, Checker.CAUSAL_ORDER, stored.check_causes(replica.store))
        self._must_not(placed, Checker.MARKERS, checks.check_markers(file, held, self._markers))
        self._must_not(placed, Checker.ACKNOWLEDGED, checks.check_acknowledged(own, held))

    def _check_bodies(self, part: Sequence[Placed]) -> None:
        """No member lacks what another one has."""
        of_members = [self._holdings[device.name] for device, _ in part]
        for placed in part:
            self._must_not(placed, Checker.BODIES, checks.check_bodies(self._holdings[placed[0].name], of_members))

    def _check_alike(self, part: Sequence[Placed]) -> None:
        """Members that know each other hold the same."""
        first = self._held(part[0])
        for placed in part[1:]:
            self._must_not(placed, *(first.difference(self._held(placed)) or (Checker.VECTORS, None)))

    def _held(self, placed: Placed) -> Replicated:
        """What a file holds; looked up once."""
        device, replica = placed
        if device.name not in self._replicated:
            self._replicated[device.name] = Replicated.of(replica.store)
        return self._replicated[device.name]

    def _check_sense(self, placed: Placed) -> None:
        """What a file shows is what its logs amount to."""
        device, replica = placed
        self._must_not(placed, Checker.REBUILD, checks.check_state(replica.store, self._amounts))
        self._must_not(placed, Checker.ORACLE, checks.check_rows(replica.store, self._holdings[device.name], self._amounts))

    def _check_part(self, part: Sequence[Placed]) -> int:
        """Of what members hold counts what the rules say; returns the number of their rows."""
        device, replica = part[0]
        rules = Admitted(replica.group, acts_of(replica.store), self._data)
        ids = {device.device_id for device, _ in part}
        for placed in part:
            held = self._holdings[placed[0].name]
            self._must_not(placed, Checker.AUTHORITY, checks.check_counting(held, rules, self._everything, ids))
        wrong = checks.check_from_scratch(
            replica.store,
            self._held(part[0]),
            device.context,
            device.folder,
            self._schedule.stream("order", replica.name),
        )
        self._must_not(part[0], Checker.ANY_ORDER, wrong)
        return sum(map(len, replica.store.dump().values()))

    def _check_outsiders(self) -> None:
        """Whoever is out has nothing that was written by those who knew."""
        claimants = {device.device_id for device, _ in self._beliefs.claimants}
        acts = {act.hash: act for _, replica in self._placed for act in acts_of(replica.store)}
        for placed in self._placed:
            device, replica = placed
            if device.device_id not in claimants:
                rules = Admitted(replica.group, acts.values(), self._data)
                wrong = checks.check_removed(device.device_id, self._holdings[device.name], rules)
                self._must_not(placed, Checker.OUTSIDERS, wrong)

    def _reopen(self, parts: Sequence[Sequence[Placed]]) -> None:
        """Rebuilds one file of each part, by lot, and all that are in none: members' files were found to be alike."""
        random = self._schedule.stream("rebuilt", self._placed[0][1].name)
        members = [placed for part in parts for placed in part]
        outside = [placed for placed in self._placed if placed not in members]
        for placed in (*map(random.choice, parts), *outside):
            device, replica = placed
            before = self._held(placed)
            replica.store, wrong = checks.check_rebuilt(replica.store, before, replica.file, device.context)
            self._must_not(placed, Checker.REBUILD, wrong)
