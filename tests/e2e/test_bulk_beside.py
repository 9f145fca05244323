"""A bulk load in one group does not delay another group on the same link: seen in the order in which rows arrive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
import trio

from peersd.testing.pairs import GROUP, Pair, open_pair
from peersd.testing.processes import HANG_S, LOOK_AGAIN_S, DaemonProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"
INSERT = "INSERT INTO note (text) VALUES (?)"

BULK = GROUP
SINGLE = "single"
BULK_ROWS = 100_000
BATCH_ROWS = 2_000
STAGES = 10
"""Parts of the load, in most of which single rows have to arrive."""


async def load(daemon: DaemonProcess) -> None:
    """Write BULK_ROWS rows in transactions of BATCH_ROWS."""
    random = Random(1)
    async with daemon.client() as peers:
        for _ in range(BULK_ROWS // BATCH_ROWS):
            # Rows that cannot be made much smaller: else a message holds so many that most parts of the load are never seen.
            rows = [[random.randbytes(20).hex()] for _ in range(BATCH_ROWS)]
            statements = [{"sql": INSERT, "params_seq": rows}]
            await peers.call("sql.transaction", group=BULK, statements=statements, timeout_s=HANG_S)


class Arrivals:
    """What a receiver has of both groups, as it grows.

    Attributes:
        seen: (rows of the bulk group, rows of the single group), one after the other.
        written: rows that were written into the single group.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.written = 0

    async def watch(self, daemon: DaemonProcess, rows: int) -> None:
        """Look until the bulk group has so many rows."""
        with trio.fail_after(HANG_S):
            async with daemon.client() as peers:
                while not self.seen or self.seen[-1][0] < rows:
                    counts = []
                    for group in (BULK, SINGLE):
                        answer = await peers.call("sql.query", group=group, sql="SELECT count(*) FROM note")
                        counts.append(answer["rows"][0][0])
                    self.seen.append((counts[0], counts[1]))
                    await trio.sleep(LOOK_AGAIN_S)

    async def write_singles(self, daemon: DaemonProcess, until_done: trio.CancelScope) -> None:
        """Write one row after the other until cancelled."""
        with until_done:
            async with daemon.client() as peers:
                while True:
                    await peers.call("sql.execute", group=SINGLE, sql=INSERT, params=["single"])
                    self.written += 1

    def stages_with_singles(self, first: int, last: int) -> int:
        """In how many of STAGES equal parts of the load, from `first` to `last` rows, single rows arrived."""
        size = (last - first) / STAGES
        grown: set[int] = set()
        for (bulk, before), (_, after) in zip(self.seen, self.seen[1:], strict=False):
            if first <= bulk < last and after > before:
                grown.add(int((bulk - first) / size))
        return len(grown)


async def arrivals_during(pair: Pair, work: Callable[[], Awaitable[None]], first: int) -> Arrivals:
    """Write single rows while something brings the bulk group from `first` to BULK_ROWS more on ben."""
    arrivals = Arrivals()
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(arrivals.write_singles, pair.ada, scope)
        nursery.start_soon(work)
        await arrivals.watch(pair.ben, first + BULK_ROWS)
        scope.cancel()
    return arrivals


async def test_single_writes_of_one_group_arrive_throughout_a_bulk_load_and_a_bulk_catch_up_of_another(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        await pair.ada.call("group.create", name=SINGLE)
        await pair.ada.call("sql.execute", group=SINGLE, sql=NOTE)
        ticket = (await pair.ada.call("invite.create", group=SINGLE))["ticket"]
        await pair.ben.call("invite.accept", ticket=ticket, timeout_s=HANG_S)

        async def load_on_ada() -> None:
            await load(pair.ada)

        check(await arrivals_during(pair, load_on_ada, 0), 0)

        # The same where the load waits on one side, and the other catches up.
        await pair.part()
        await load(pair.ada)
        check(await arrivals_during(pair, pair.meet, BULK_ROWS), BULK_ROWS)

        await pair.ada.call("sync.wait", group=SINGLE, timeout_s=HANG_S)
        counts = [
            (await daemon.call("sql.query", group=SINGLE, sql="SELECT count(*) FROM note"))["rows"]
            for daemon in (pair.ada, pair.ben)
        ]
        assert counts[0] == counts[1]


def check(arrivals: Arrivals, first: int) -> None:
    """Single rows came between the first and the last of the load, in most parts of it, and a good part of all."""
    begun = next(single for bulk, single in arrivals.seen if bulk > first)
    ended = next(single for bulk, single in arrivals.seen if bulk >= first + BULK_ROWS)
    grown = arrivals.stages_with_singles(first, first + BULK_ROWS)
    told = f"{arrivals.written} written, {ended - begun} between the first and the last of the load, in {grown} of its parts"
    assert ended - begun >= arrivals.written / 3, told
    assert grown >= STAGES // 2, told
    print(told)
