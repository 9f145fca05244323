"""Links that come back: without anybody's act, and at a cost that does not depend on the number of rows."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from peersd.testing.observing import tcp_connections
from peersd.testing.pairs import GROUP, Pair, open_pair, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e

NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"

MESSAGE_FROM_LISTENER_BYTES = 20
MESSAGE_FROM_DIALLER_BYTES = 24
"""What one more WebSocket message costs: its header of 2, or 6 with the mask, the Noise message's length of 2 and tag of 16.
How many of them the frames of the opening burst travel in depends on who was quicker, the writer of the link or the thread of
the store; the frames are the same."""

MESSAGES_BYTES = 2 * (MESSAGE_FROM_LISTENER_BYTES + MESSAGE_FROM_DIALLER_BYTES)
"""By so much two reconnects that carry the same differ at most."""

ROUNDS_MAX = 11
"""Reconnects until three in a row carry the same. The beacon of either device may fall due once meanwhile, each after two that
carried none, and a cut may leave what one of them carries to one more: twice 2 + 2, and 3."""


def spread(costs: Sequence[tuple[int, int]]) -> int:
    """By how many bytes the dearest reconnect differs from the cheapest."""
    sums = [sum(cost) for cost in costs]
    return max(sums) - min(sums)


async def link_bytes(listener: DaemonProcess, dialler: DaemonProcess) -> tuple[int, int]:
    """Bytes on the one link between two daemons, to the dialler and from it, once all of them have arrived."""
    found: list[tuple[int, int]] = []

    async def has_arrived() -> bool:
        on_listener, on_dialler = [await daemon.call("link.list") for daemon in (listener, dialler)]
        links = [link for link in on_listener for other in on_dialler if link["bytes_in"] == other["bytes_out"]]
        if len(on_dialler) != 1 or len(links) != 1 or links[0]["bytes_out"] != on_dialler[0]["bytes_in"]:
            return False
        found.append((links[0]["bytes_out"], links[0]["bytes_in"]))
        return len(found) > 1 and found[-1] == found[-2]

    await until(has_arrived)
    return found[-1]


async def both_say_equal(pair: Pair) -> bool:
    for daemon in (pair.ada, pair.ben):
        ((device,),) = [status["devices"] for status in await daemon.call("sync.status", group=GROUP)]
        if not device["equal"]:
            return False
    return True


async def write_rows(daemon: DaemonProcess, number: int) -> None:
    for start in range(0, number, 20_000):
        rows = [[f"row {n}"] for n in range(start, min(number, start + 20_000))]
        await daemon.call(
            "sql.transaction",
            group=GROUP,
            statements=[{"sql": "INSERT INTO note (text) VALUES (?)", "params_seq": rows}],
            timeout_s=HANG_S,
        )


async def test_a_reconnect_in_sync_costs_the_same_after_1000_and_100000_rows_and_under_1_kib(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair, open_daemon(tmp_path, "eve") as eve:
        # What a link costs whose devices share nothing is the handshake, that of TCP's payload and WebSocket's headers included.
        await eve.call("init", user_name="eve", device_name="eve-laptop")
        await pair.part()
        pair.network.mend()
        await eve.call("link.connect", url=await pair.ada.url())
        handshake = sum(await link_bytes(pair.ada, eve))
        await eve.terminate()

        costs: dict[int, list[tuple[int, int]]] = {}
        for rows in (1_000, 100_000):
            await pair.meet()
            await write_rows(pair.ada, rows - (await pair.rows("SELECT count(*) FROM note"))[0][0])
            await pair.sync()
            assert await pair.rows("SELECT count(*) FROM note") == [[rows]]
            # The beacon of either device that falls due after the writes is news which a reconnect carries; then nothing is.
            for _ in range(ROUNDS_MAX):
                await pair.part()
                pair.network.mend()
                passed = pair.network.bytes_passed
                await pair.ben.call("link.connect", url=pair.network.url)
                await until(lambda: both_say_equal(pair))
                out, back = await link_bytes(pair.ada, pair.ben)
                # What the daemons count is what went over the wire.
                assert out + back == pair.network.bytes_passed - passed
                assert out + back - handshake < 1024
                costs.setdefault(rows, []).append((out, back))
                if len(costs[rows]) >= 3 and spread(costs[rows][-3:]) <= MESSAGES_BYTES:
                    break
            await pair.part()
        everything = costs[1_000][-3:] + costs[100_000][-3:]
        assert len({out % MESSAGE_FROM_LISTENER_BYTES for out, _ in everything}) == 1, costs
        assert len({back % MESSAGE_FROM_DIALLER_BYTES for _, back in everything}) == 1, costs
        assert spread(everything) <= MESSAGES_BYTES, costs


async def test_links_come_back_by_themselves_after_a_cut_a_restart_and_a_kill_of_either_side(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        written = 0

        async def still_syncs() -> None:
            nonlocal written
            for daemon in (pair.ada, pair.ben):
                await daemon.call("sql.execute", sql="INSERT INTO note (text) VALUES ('x')", group=GROUP)
                written += 1
            await pair.sync()
            assert await pair.rows("SELECT count(*) FROM note") == [[written]]

        await still_syncs()
        await pair.part()
        # Both go on alone; what they write meanwhile crosses when the network is back, without anybody's act.
        for daemon in (pair.ada, pair.ben):
            await daemon.call("sql.execute", sql="INSERT INTO note (text) VALUES ('apart')", group=GROUP)
            written += 1
        pair.network.mend()
        await still_syncs()
        for daemon in (pair.ada, pair.ben):
            await daemon.restart()
            await still_syncs()
        for daemon in (pair.ben, pair.ada):
            await daemon.kill()
            await daemon.start()
            await still_syncs()
        for daemon in (pair.ada, pair.ben):
            assert len(tcp_connections(daemon.pid)) == 1


async def test_a_side_that_stood_still_goes_on_over_the_same_link(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        (before,) = tcp_connections(pair.ada.pid)
        assert pair.ben.process is not None
        pair.ben.process.send_signal(signal.SIGSTOP)
        try:
            await write_rows(pair.ada, 1_000)
            (status,) = await pair.ada.call("sync.status", group=GROUP)
            assert [(device["equal"], device["lag_entries"]) for device in status["devices"]] == [(False, 1)]
        finally:
            pair.ben.process.send_signal(signal.SIGCONT)
        await pair.sync()
        assert await pair.rows("SELECT count(*) FROM note") == [[1_000]]
        assert tcp_connections(pair.ada.pid) == [before]
