"""sync.wait over one group and over all of a user's; the bytes of links; a query in a group that is closed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from peersd.errors import PeersdError
from peersd.node.api_node import ApiNode
from peersd.testing.processes import HANG_S
from peersd_protocol import ids
from tests.node.two_nodes import device_of, group_of, open_two, spoil, until, write

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


async def wait(node: ApiNode, group: str | None = None, devices: list[str] | None = None, timeout_s: float = HANG_S) -> None:
    await node.sync_wait(user=None, group=group, devices=devices, timeout_s=timeout_s)


async def test_a_named_device_is_waited_for_in_the_groups_in_which_it_is_a_members(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        await two.ada.group_create(user=None, name="alone", description=None)
        await write(two.ada, "shared", "row")
        ben = ids.format_id(ids.DEVICE, device_of(two.ben))
        await wait(two.ada, devices=[ben])
        held = await group_of(two.ben, "shared").digest()
        assert held.digest == (await group_of(two.ada, "shared").digest()).digest
        with pytest.raises(PeersdError) as failed:
            await wait(two.ada, devices=["nobody's"])
        assert failed.value.code == "user_not_found"
        with pytest.raises(PeersdError) as failed:
            await wait(two.ada, "alone", devices=[ben])
        assert failed.value.code == "user_not_found"


async def test_a_group_whose_members_are_all_away_holds_up_no_wait_for_all_groups(tmp_path: Path, errors: set[str]) -> None:
    async with open_two(tmp_path, "shared", "away") as two:
        errors.add("group_not_opened")
        await two.rest()
        spoil(group_of(two.ben, "away"))
        await write(two.ada, "away", "row")
        await until(lambda: group_of(two.ben, "away").store.failure is not None and not group_of(two.ada, "away").lanes())
        await write(two.ada, "shared", "row")
        await wait(two.ada)
        with pytest.raises(PeersdError) as failed:
            await wait(two.ada, "away", timeout_s=0.5)
        assert failed.value.code == "timeout"


async def test_a_wait_for_all_groups_names_the_group_whose_file_cannot_be_opened(tmp_path: Path, errors: set[str]) -> None:
    errors.add("group_not_opened")
    async with open_two(tmp_path, "shared") as two:
        await two.rest()
        spoil(group_of(two.ada, "shared"))
        with pytest.raises(PeersdError) as failed:
            await wait(two.ada)
        assert failed.value.code == "store_corrupt"


async def test_bytes_of_links_that_have_ended_still_count(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        links = two.ben.links
        assert links is not None
        (handle,) = links.handles()
        before = links.bytes_carried()
        await two.ben.link_disconnect(user=None, device=ids.format_id(ids.DEVICE, device_of(two.ada)))
        await until(lambda: handle.is_down and not links.handles())
        after = links.bytes_carried()
        assert after[0] >= before[0] > 0 and after[1] >= before[1] > 0


async def test_a_query_that_runs_ends_when_its_group_is_closed(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        group = group_of(two.ada, "shared")
        failures: list[str] = []

        async def query() -> None:
            try:
                await two.ada.sql_query(user=None, group="shared", sql=ENDLESS, params=(), limit=1, timeout_s=3600)
            except PeersdError as error:
                failures.append(error.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(query)
            await until(lambda: group.opened is not None and group.opened.store._query_threads.borrowed_tokens > 0)
            with trio.fail_after(HANG_S):
                await group.store.close()
        assert failures == ["busy"]
