"""What clients ask of a device that is none of the memberships' business: writes, tables, the group's name."""

from __future__ import annotations

from typing import Final

from peersd.errors import PeersdError
from peersd.store.batch import Success
from peersd.store.store import Commit
from peersd.testing.simulator.device import Process
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.statements import LATER_SCHEMA, make_write, marker_of
from peersd_protocol.acts import SchemaAct, Settings, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Deed
from peersd_protocol.schema_ops import SchemaOp

LARGE_AVATAR_BYTES: Final = 60_000
"""A few of these make a group's acts longer than one message of a stream."""


class Clients:
    """The clients of all devices.

    Args:
        schedule: of the simulation.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def act(self, process: Process) -> None:
        """A client of this device asks for something."""
        random = self._schedule.random
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
            self._write(process, replica)

    def _write(self, process: Process, replica: Replica) -> None:
        random = self._schedule.random
        writes = [make_write(random, process.user, replica.name) for _ in range(random.choice((1, 1, 1, 2, 6)))]

        def wrote(result: tuple[list[Success | PeersdError], Commit | None]) -> None:
            outcomes, commit = result
            codes = [outcome.code if isinstance(outcome, PeersdError) else "done" for outcome in outcomes]
            self._schedule.note(process.name, f"{replica.name} wrote: {' '.join(codes)}")
            process.acknowledge(replica, commit)

        replica.ask(f"writes {len(writes)}", lambda: replica.store.write(writes), wrote)

    def _change_schema(self, process: Process, replica: Replica, sql: str) -> None:
        store, user = replica.store, process.user

        def planned(ops: list[SchemaOp]) -> None:
            if ops:
                body = encode_body(SchemaAct(tuple(ops)))
                replica.ask("defines", lambda: store.act(user, Kind.CONTROL, body)[1], process.acknowledging(replica))

        replica.ask(f"plans {sql}", lambda: store.plan_schema(user, sql), planned)
