"""The verdict on a group when all is over: each file by itself, the members' files together, and those of whoever is out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from peersd.store.store import Store, StoreContext
from peersd.testing.checkers import Checker, Finding
from peersd.testing.simulator import checks, stored
from peersd.testing.simulator.admitted import Admitted
from peersd.testing.simulator.checks import Acknowledged, Replicated
from peersd.testing.simulator.disk import DiskFile
from peersd.testing.simulator.entries import Holding, acts_of, holdings_of, is_data
from peersd_protocol.entries import Header


@dataclass
class Kept:
    """The file of a group on a device.

    Attributes:
        device: the device's name.
        device_id: the device's id.
        file: of the group.
        store: opened from it; when the verdict is given, the one that it was opened anew as.
        context: that it is opened in.
    """

    device: str
    device_id: bytes
    file: DiskFile
    store: Store
    context: StoreContext


class Verdict:
    """The checks of one group.

    Args:
        kept: all files of the group.
        parts: the members, those together that agree on each other.
        outsiders: devices that know that they are no member's; nobody where the members do not agree.
        markers: by group, texts that are written only there.
        acknowledged: what clients were told of.
        random: draws the order in which all is fed to an empty store.
        folder: where that is made.
        hostile: devices that write what they like.
        have_met: whether members are to be alike; else each file is looked at by itself, and for bodies that others have.

    Attributes:
        rows: how many the members had, once `findings` has ended.
    """

    def __init__(
        self,
        kept: Sequence[Kept],
        *,
        parts: Sequence[Sequence[Kept]],
        outsiders: Sequence[Kept],
        markers: Mapping[str, Iterable[str]],
        acknowledged: Sequence[Acknowledged],
        random: Random,
        folder: Path,
        hostile: Collection[bytes] = (),
        have_met: bool = True,
    ) -> None:
        self.rows = 0
        self._hostile = hostile
        self._have_met = have_met
        self._kept = kept
        self._parts = parts
        self._outsiders = outsiders
        self._markers = markers
        self._acknowledged = acknowledged
        self._random = random
        self._folder = folder
        self._holdings = {one.device: holdings_of(one.store) for one in kept}
        self._everything: Mapping[bytes, Holding] = {
            hash_: held for holdings in self._holdings.values() for hash_, held in holdings.items()
        }
        self._data: Mapping[bytes, Header] = {
            hash_: held.header for hash_, held in self._everything.items() if is_data(held.header)
        }
        self._replicated: dict[str, Replicated] = {}
        self._amounts = checks.Amounts()
        self._signed: set[tuple[bytes, bytes]] = set()

    def findings(self) -> Iterator[Finding]:
        """Looks at everything, causes before what follows from them; each look is made when it is asked for."""
        for one, checker, wrong in self._look():
            if wrong is not None:
                yield Finding(checker, f"{one.device}: {one.file.name}: {wrong}")

    def _look(self) -> Iterator[tuple[Kept, Checker, str | None]]:
        for one in self._kept:
            yield from self._look_at_file(one)
        if self._kept:
            honest = (held.header for held in self._everything.values() if held.header.device not in self._hostile)
            wrong = stored.check_sequence(honest)
            yield self._kept[0], Checker.SEQUENCE, wrong
        for part in self._parts:  # what lacks its body has no rows: this is told by its cause
            yield from self._look_at_bodies(part)
            yield from self._compare(part) if self._have_met else ()
        for one in self._kept:
            yield one, Checker.REBUILD, checks.check_state(one.store, self._amounts)
            yield one, Checker.ORACLE, checks.check_rows(one.store, self._holdings[one.device], self._amounts)
        if self._have_met:
            for part in self._parts:
                yield from self._look_at_part(part)
            yield from self._look_at_outsiders()
        yield from self._rebuild()

    def _look_at_file(self, one: Kept) -> Iterator[tuple[Kept, Checker, str | None]]:
        """What holds of every file, whoever it belongs to."""
        held = self._holdings[one.device]
        own = [entry for entry in self._acknowledged if entry.device == one.device]
        yield one, Checker.INTEGRITY, checks.check_file(one.file)
        yield one, Checker.CHAIN, stored.check_chain(one.store, self._signed)
        yield one, Checker.CAUSAL_ORDER, stored.check_causes(one.store)
        yield one, Checker.MARKERS, checks.check_markers(one.file, held, self._markers)
        yield one, Checker.ACKNOWLEDGED, checks.check_acknowledged(own, held)

    def _look_at_bodies(self, part: Sequence[Kept]) -> Iterator[tuple[Kept, Checker, str | None]]:
        """No member lacks what another one has."""
        of_members = [self._holdings[one.device] for one in part]
        for one in part:
            yield one, Checker.BODIES, checks.check_bodies(self._holdings[one.device], of_members)

    def _compare(self, part: Sequence[Kept]) -> Iterator[tuple[Kept, Checker, str | None]]:
        """Members that know each other hold the same."""
        first = self._held(part[0])
        for one in part[1:]:
            checker, text = first.difference(self._held(one)) or (Checker.VECTORS, None)
            yield one, checker, text

    def _look_at_part(self, part: Sequence[Kept]) -> Iterator[tuple[Kept, Checker, str | None]]:
        """Of what members hold counts what the rules say, and it comes to the same in another order."""
        first = part[0]
        rules = Admitted(first.file.group, acts_of(first.store), self._data)
        yield first, Checker.AUTHORITY, rules.overused()
        ids = {one.device_id for one in part}
        for one in part:
            held = self._holdings[one.device]
            yield one, Checker.AUTHORITY, checks.check_counting(held, rules, self._everything, ids)
        wrong = checks.check_from_scratch(first.store, self._held(first), first.context, self._folder, self._random)
        yield first, Checker.ANY_ORDER, wrong
        self.rows += sum(map(len, first.store.dump().values()))

    def _held(self, one: Kept) -> Replicated:
        """What a file holds; looked up once."""
        if one.device not in self._replicated:
            self._replicated[one.device] = Replicated.of(one.store)
        return self._replicated[one.device]

    def _rebuild(self) -> Iterator[tuple[Kept, Checker, str | None]]:
        """Rebuilds one file of each part, by lot, and all that are in none: members' files were found to be alike."""
        parts = self._parts if self._have_met else ()
        members = [one for part in parts for one in part]
        for one in (*map(self._random.choice, parts), *(one for one in self._kept if one not in members)):
            one.store, wrong = checks.check_rebuilt(one.store, self._held(one), one.file, one.context)
            yield one, Checker.REBUILD, wrong

    def _look_at_outsiders(self) -> Iterator[tuple[Kept, Checker, str | None]]:
        """Whoever is out has nothing that was written by those who knew."""
        if not self._outsiders:
            return
        acts = {act.hash: act for one in self._kept for act in acts_of(one.store)}
        rules = Admitted(self._kept[0].file.group, acts.values(), self._data)
        for one in self._outsiders:
            yield one, Checker.OUTSIDERS, checks.check_removed(one.device_id, self._holdings[one.device], rules)
