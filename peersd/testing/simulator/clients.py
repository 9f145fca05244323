"""What clients ask of a device that is none of the memberships' business: reads, writes, tables, the group's name."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Final

from peersd.errors import PeersdError
from peersd.store.batch import Success
from peersd.store.recorder import LastEntry
from peersd.store.store import Commit
from peersd.testing.checkers import Checker
from peersd.testing.simulator.deals import QUERY, Deal, Deals, make_deal
from peersd.testing.simulator.device import Process
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.statements import LATER_SCHEMA, make_write, marker_of
from peersd.testing.simulator.telling import tell_writes
from peersd_protocol.acts import SchemaAct, Settings, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Deed
from peersd_protocol.schema_ops import SchemaOp

LARGE_AVATAR_BYTES: Final = 60_000
"""A few of these make a group's acts longer than one message of a stream."""

_Outcomes = tuple[list[Success | PeersdError], Commit | None]


class Clients:
    """The clients of all devices.

    Args:
        schedule: of the simulation.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._deals: dict[bytes, Deals] = defaultdict(Deals)

    def act(self, process: Process, random: Random) -> None:
        """A client of this device asks for a change that `random` decides."""
        if not process.registered:
            return
        replica = random.choice(process.registered)
        state, user, kind = replica.state, process.user, random.random()
        is_bold = random.random() < 0.05
        if kind < 0.03 and (is_bold or state.may(user, Deed.CHANGE_SCHEMA)):
            self._change_schema(process, replica, random.choice(LATER_SCHEMA))
        elif kind < 0.08 and (is_bold or state.may(user, Deed.CHANGE_SETTINGS)):
            name = f"{marker_of(replica.name)} by {process.name} at {self._schedule.now_ms}"
            avatar = random.randbytes(LARGE_AVATAR_BYTES) if random.random() < 0.3 else None
            body = encode_body(Settings(name=name, avatar=avatar))
            replica.ask("renames", lambda: replica.store.act(user, Kind.CONTROL, body)[1], process.acknowledging(replica))
        elif (is_bold or state.may(user, Deed.WRITE)) and state.schema.tables:
            self._write(process, replica, random)

    def _write(self, process: Process, replica: Replica, random: Random) -> None:
        writes = [make_write(random, process.user, replica.name) for _ in range(random.choice((1, 1, 1, 2, 6)))]
        name, place = f"{replica.name}{self._schedule.next_number('deal', replica.name)}", len(writes)
        rests: str | None = None
        if random.random() < 0.4:
            place = random.randint(0, len(writes))
            deal, rests = make_deal(random, process.user, name, replica.deals_read)
            writes.insert(place, deal)
        deals = self._deals[replica.group]

        def write() -> _Outcomes:
            has_cause = rests is not None and deals.is_counted(replica.store, rests)
            outcomes, commit = replica.store.write(writes)
            done = outcomes[place] if place < len(outcomes) else None
            if isinstance(done, Success) and isinstance(done.recorded, LastEntry) and commit is not None:
                last = done.recorded
                entry = next(one for one in commit.entries if (one.log.epoch, one.seq) == (last.epoch, last.seq))
                deals.known[name] = Deal(entry.hash, process.name, has_cause)
            return outcomes, commit

        def wrote(result: _Outcomes) -> None:
            outcomes, commit = result
            codes = [outcome.code if isinstance(outcome, PeersdError) else "done" for outcome in outcomes]
            self._schedule.note(process.name, f"{replica.name} wrote: {' '.join(codes)}")
            process.acknowledge(replica, commit)
            if name in deals.known:
                deals.known[name].is_acknowledged = True

        replica.ask(tell_writes(writes), write, wrote)

    def _change_schema(self, process: Process, replica: Replica, sql: str) -> None:
        store, user = replica.store, process.user

        def planned(ops: list[SchemaOp]) -> None:
            if ops:
                body = encode_body(SchemaAct(tuple(ops)))
                replica.ask("defines", lambda: store.act(user, Kind.CONTROL, body)[1], process.acknowledging(replica))

        replica.ask(f"plans {sql}", lambda: store.plan_schema(user, sql), planned)

    # --- Reading ----------------------------------------------------------------------------------------------------------------

    def read(self, process: Process, replica: Replica) -> None:
        """A client of this device reads, between any two calls of its store.

        Raises:
            SimulationFailed: it reads what must not be seen.
        """
        where = f"{process.name} {replica.name}"
        for sharing in process.links.sharings.values():
            wrong = sharing.check_lot()
            if wrong is not None:
                raise self._schedule.fail(Checker.QUEUE_BOUNDS, f"{process.name}: {wrong}")
        if {"deal", "deal_part"} <= {table.name for table in replica.state.schema.tables}:
            rows = replica.read(QUERY)
            found = self._deals[replica.group].check(process.name, replica.store, rows)
            if found is not None:
                raise self._schedule.fail(found[0], f"{where}: {found[1]}")
            replica.deals_read = {str(name): None for name, *_ in rows}
            self._schedule.note(process.name, f"{replica.name} reads {len(replica.deals_read)} deals")
