"""What it costs two devices that hold the same to link again: time from the dial until both know, and bytes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import trio

from peersd.client import Peers
from peersd.testing.processes import DaemonProcess
from scripts.bench_limits import make_rows
from scripts.bench_pairs import GROUP, init, open_pair, wait_equal, wait_synced, wait_until, write_batches
from scripts.bench_run import Run
from scripts.daemon_process import open_daemon


@dataclass(frozen=True)
class Reconnect:
    """One reconnect: ms from the call of link.connect until both sides know that they are equal, and bytes both ways by then."""

    ms: float
    link_bytes: int


async def measure_reconnect(run: Run) -> None:
    """With few rows and with many in the one group."""
    place = run.folder / "reconnect"
    async with open_pair(place) as (a, b, _), open_daemon(place, "stranger") as stranger:
        await init(stranger)
        handshakes = [await measure_handshake(a, stranger) for _ in range(run.sizes.rounds)]
        run.add("reconnect_handshake_bytes", "bytes", handshakes)
        written = 0
        for name, total in (("few", run.sizes.few_rows), ("many", run.sizes.large_rows)):
            async with a.client() as peers:
                await write_batches(peers, GROUP, make_rows(total - written, seed=total))
            written = total
            for daemon in (a, b):
                await wait_synced(daemon, GROUP)
            limits = [(await run.limits.measure_durations()).websocket.p50_ms for _ in range(run.sizes.rounds)]
            rounds = [await reconnect(a, b, 1) for _ in range(run.sizes.rounds)]
            run.add(f"reconnect_time_{name}", "ms", [one.ms for one in rounds], limits)
            run.add(f"reconnect_bytes_{name}", "bytes", [one.link_bytes for one in rounds])
            beyond = [one.link_bytes - statistics.median(handshakes) for one in rounds]
            run.add(f"reconnect_group_bytes_{name}", "bytes", beyond)


async def measure_handshake(a: DaemonProcess, stranger: DaemonProcess) -> int:
    """Bytes of a link between devices that share nothing, which is then ended."""
    url = await a.url()
    async with a.client() as on_a, stranger.client() as on_stranger:
        ends = await _Ends.of(on_a, on_stranger)
        await on_stranger.connect(url)
        link_bytes = await ends.settled_bytes()
        await ends.part()
        return link_bytes


async def reconnect(a: DaemonProcess, b: DaemonProcess, groups: int) -> Reconnect:
    """B ends its link to A and dials anew; so many groups are in sync before and after."""
    url = await a.url()
    async with a.client() as on_a, b.client() as on_b:
        ends = await _Ends.of(on_a, on_b)
        await ends.part()
        equal_at: list[float] = []

        async def watch(peers: Peers) -> None:
            await wait_equal(peers, groups)
            equal_at.append(time.perf_counter())

        async with trio.open_nursery() as nursery:
            began = time.perf_counter()
            nursery.start_soon(on_b.connect, url)
            nursery.start_soon(watch, on_a)
            nursery.start_soon(watch, on_b)
        return Reconnect((max(equal_at) - began) * 1000, await ends.settled_bytes())


@dataclass(frozen=True)
class _Ends:
    """Two daemons and their device ids; others may be linked to them as well."""

    a: Peers
    b: Peers
    device_a: str
    device_b: str

    @classmethod
    async def of(cls, a: Peers, b: Peers) -> _Ends:
        return cls(a, b, (await a.status())["device_id"], (await b.status())["device_id"])

    async def links(self) -> list[dict[str, Any]]:
        """The link between the two, as A shows it and as B does."""
        on_a = [link for link in await self.a.links() if link["device_id"] == self.device_b]
        return on_a + [link for link in await self.b.links() if link["device_id"] == self.device_a]

    async def part(self) -> None:
        """B ends the link; returns when both know."""
        await self.b.disconnect(self.device_a)

        async def are_parted() -> bool:
            return not await self.links()

        await wait_until(are_parted)

    async def settled_bytes(self) -> int:
        """Bytes both ways on the link once all that either has sent has arrived."""
        seen: list[int] = []

        async def has_settled() -> bool:
            links = await self.links()
            if len(links) != 2 or (links[0]["bytes_in"], links[0]["bytes_out"]) != (links[1]["bytes_out"], links[1]["bytes_in"]):
                return False
            seen.append(links[0]["bytes_in"] + links[0]["bytes_out"])
            return len(seen) > 1 and seen[-1] == seen[-2]

        await wait_until(has_settled, poll_s=0.02)
        return seen[-1]
