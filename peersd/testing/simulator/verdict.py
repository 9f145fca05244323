"""The verdict on a group when all is over: each file by itself, the members' files together, and those of whoever is out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peersd.testing.simulator import checks
from peersd.testing.simulator.admitted import Admitted
from peersd.testing.simulator.beliefs import Beliefs, Placed
from peersd.testing.simulator.checks import Acknowledged, Replicated
from peersd.testing.simulator.entries import Holding, acts_of, holdings_of, is_data
from peersd.testing.simulator.schedule import Schedule
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
        self._names = names
        self._acknowledged = acknowledged
        self._beliefs = Beliefs(placed)
        self._holdings = {device.name: holdings_of(replica.store) for device, replica in placed}
        self._everything: Mapping[bytes, Holding] = {
            hash_: held for holdings in self._holdings.values() for hash_, held in holdings.items()
        }
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
        parts = self._beliefs.parts()
        if len(parts) > 1:
            told = " | ".join(" ".join(device.name for device, _ in part) for part in parts)
            self._schedule.note("", f"{parts[0][0][1].name} is in parts: {told}")
        rows = sum(self._check_part(part) for part in parts)
        if not self._beliefs.is_split:
            self._check_outsiders()
        for placed in self._placed:
            self._reopen(placed)
        return rows

    def _must_not(self, placed: Placed, wrong: str | None) -> None:
        device, replica = placed
        if wrong is not None:
            raise self._schedule.fail(f"{device.name} {replica.name}: {wrong}")

    def _check_file(self, placed: Placed) -> None:
        """What holds of every file, whoever it belongs to."""
        device, replica = placed
        held, file = self._holdings[device.name], replica.file
        own = [entry for entry in self._acknowledged if entry.device == device.name]
        self._must_not(placed, checks.check_acknowledged(own, held))
        self._must_not(placed, checks.check_state(replica.store))
        self._must_not(placed, checks.check_rows(replica.store, held))
        self._must_not(placed, checks.check_markers(file, held, self._names))
        self._must_not(placed, checks.check_file(file))

    def _check_part(self, part: Sequence[Placed]) -> int:
        """Members that know each other hold the same, and of it counts what the rules say."""
        device, replica = part[0]
        first = Replicated.of(replica.store)
        rules = Admitted(replica.group, acts_of(replica.store), self._data)
        ids = {device.device_id for device, _ in part}
        for placed in part:
            held = self._holdings[placed[0].name]
            self._must_not(placed, first.difference(Replicated.of(placed[1].store)))
            self._must_not(placed, checks.check_counting(held, rules, self._everything, ids))
            self._must_not(placed, checks.check_bodies(held, [self._holdings[other.name] for other, _ in part]))
        wrong = checks.check_from_scratch(replica.store, device.context, device.folder, self._schedule.random)
        self._must_not(part[0], wrong)
        return sum(map(len, first.rows.values()))

    def _check_outsiders(self) -> None:
        """Whoever is out has nothing that was written by those who knew."""
        claimants = {device.device_id for device, _ in self._beliefs.claimants}
        acts = {act.hash: act for _, replica in self._placed for act in acts_of(replica.store)}
        for placed in self._placed:
            device, replica = placed
            if device.device_id not in claimants:
                rules = Admitted(replica.group, acts.values(), self._data)
                self._must_not(placed, checks.check_removed(device.device_id, self._holdings[device.name], rules))

    def _reopen(self, placed: Placed) -> None:
        device, replica = placed
        replica.store, wrong = checks.check_rebuilt(replica.store, replica.file, device.context)
        self._must_not(placed, wrong)
