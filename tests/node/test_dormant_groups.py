"""Groups whose stores are closed while nothing needs them: what wakes them, what does not, and that nothing is lost by it."""

from __future__ import annotations

import gc
import os
import weakref
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing

from peersd.errors import PeersdError
from peersd.node.api_node import ApiNode
from peersd.node.group import Group
from peersd.node.kept_store import Keeping
from peersd.store.handle import StoreHandle
from peersd.testing.observing import file_handles
from peersd.testing.pairs import free_url
from tests.node.two_nodes import (
    NOTE,
    Two,
    at_once,
    device_of,
    group_of,
    open_ada,
    open_ben,
    open_two,
    spoil,
    texts,
    until,
    write,
)

ON_DEMAND = Keeping(idle_s=0.01)
"""A store is closed as soon as nobody uses it."""


# --- What wakes a dormant group -------------------------------------------------------------------------------------------------


async def test_a_row_written_while_both_sides_are_dormant_arrives_and_both_fall_asleep_again(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one", "two") as two:
        await two.rest()
        channels = two.channels()
        assert [len(numbers) for numbers in channels] == [2, 2]
        for number, writer in enumerate([two.ada, two.ben, two.ada]):
            await two.rest()
            untouched = [group.summary.digest for group in two.both("two")]
            await write(writer, "one", f"row {number}")
            await two.rest()
            # Both stores were opened for it, and those of the other group by nobody.
            assert [group.summary.digest for group in two.both("two")] == untouched
        for node in two.nodes:
            assert await texts(node, "one") == ["row 0", "row 1", "row 2"]
        assert two.channels() == channels  # they stayed open all the while


async def test_what_both_sides_write_at_once_out_of_dormancy_crosses(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two:
        for number in range(5):
            await two.rest()
            await at_once(partial(write, two.ada, "one", f"ada {number}"), partial(write, two.ben, "one", f"ben {number}"))
        await two.rest()
        everything = sorted(f"{name} {number}" for name in ("ada", "ben") for number in range(5))
        assert [await texts(node, "one") for node in two.nodes] == [everything] * 2


async def test_writes_that_come_while_the_store_closes_are_neither_lost_nor_refused(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one", keeping=ON_DEMAND) as two:

        async def write_into_closings(name: str) -> None:
            node = getattr(two, name)
            for number in range(40):
                await until(lambda: group_of(node, "one").opened is None)  # from the moment in which closing begins
                await write(node, "one", f"{name} {number:02}")

        await at_once(partial(write_into_closings, "ada"), partial(write_into_closings, "ben"))
        await two.rest()
        everything = sorted(f"{name} {number:02}" for name in ("ada", "ben") for number in range(40))
        assert [await texts(node, "one") for node in two.nodes] == [everything] * 2


async def test_a_beacon_passes_while_the_stores_stay_closed(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two:
        at_ada, at_ben = two.both("one")
        # Soon after the last beacon, so that the next one has to wait, and the store is closed by then.
        await write(two.ben, "one", "news")
        await two.rest()
        originals = [spoil(group) for group in (at_ada, at_ben)]  # so that to open one would fail
        for group in (at_ada, at_ben):
            assert group.copies.book.digest_of(device_of(two.ben)) != group.summary.digest
        await until(lambda: at_ada.copies.book.digest_of(device_of(two.ben)) == at_ada.summary.digest)
        assert [(group.opened, group.store.failure) for group in (at_ada, at_ben)] == [(None, None)] * 2
        assert two.is_at_rest()
        for group, original in zip((at_ada, at_ben), originals, strict=True):
            group.path.write_bytes(original)


# --- Closing and opening --------------------------------------------------------------------------------------------------------


async def test_links_come_back_in_sync_without_a_store_being_opened_and_rows_pass_afterwards(tmp_path: Path) -> None:
    names = [f"group {number}" for number in range(5)]
    url = free_url()

    async def come_back(two: Two, text: str) -> None:
        groups = [group_of(node, name) for node in two.nodes for name in names]
        await until(lambda: not any(group.opened for group in groups))
        originals = [spoil(group) for group in groups]
        await two.link()
        await two.rest()
        assert [(group.opened, group.store.failure) for group in groups] == [(None, None)] * 2 * len(names)
        for group, original in zip(groups, originals, strict=True):
            group.path.write_bytes(original)
        await write(two.ben, names[0], f"{text} by ben")
        await write(two.ada, names[0], f"{text} by ada")
        await two.rest()

    async with open_ada(tmp_path, listen=url) as ada:
        async with open_ben(tmp_path) as ben:
            two = Two(ada, ben)
            await two.link()
            await two.share(*names)
            await two.rest()
        async with open_ben(tmp_path) as ben:
            await come_back(Two(ada, ben), "ben restarted")
    async with open_ben(tmp_path) as ben:
        for text in ("both restarted", "ada restarted"):
            async with open_ada(tmp_path, listen=url) as ada:
                await come_back(Two(ada, ben), text)
        restarted = ("ada restarted", "ben restarted", "both restarted")
        assert await texts(ben, names[0]) == [f"{text} by {name}" for text in restarted for name in ("ada", "ben")]


async def test_a_former_session_leaves_nothing_of_a_closed_store_in_memory(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two:
        handles: list[weakref.ref[StoreHandle]] = []
        for group in two.both("one"):
            async with group.use() as opened:
                await until(lambda group=group: bool(group.lanes()))  # type: ignore[misc]
                handles.append(weakref.ref(opened.store))
                del opened
        await two.rest()
        gc.collect()
        assert [handle() for handle in handles] == [None, None]


async def test_who_waits_for_a_store_gets_it_when_who_asked_first_has_given_up(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        await ada.group_create(user=None, name="one", description=None)
        group = group_of(ada, "one")
        for _ in range(10):
            await until(lambda: group.opened is None)
            first, second = trio.CancelScope(), trio.Event()

            async def ask_first(first: trio.CancelScope = first) -> None:
                with first:
                    await group.store.open()

            async def ask_second(second: trio.Event = second) -> None:
                async with group.use():
                    second.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_first)
                nursery.start_soon(ask_second)
                await trio.lowlevel.checkpoint()
                first.cancel()
                with trio.fail_after(60):
                    await second.wait()


async def test_the_store_idle_longest_makes_room_so_that_never_more_are_open_than_there_are_places(tmp_path: Path) -> None:
    async with open_ada(tmp_path, keeping=Keeping(idle_s=3600, open_max=4)) as ada:
        names = [f"group {number}" for number in range(12)]
        peak = 0
        for name in names:
            await ada.group_create(user=None, name=name, description=None)
            peak = max(peak, ada.open_stores())
        assert peak == 4
        used = group_of(ada, names[0])
        async with used.use():
            for name in names[1:]:
                async with group_of(ada, name).use():
                    assert ada.open_stores() <= 4
            assert used.opened is not None  # it was idle longest by the time it was opened, but it is needed
        assert [name for name in names if group_of(ada, name).opened] == [names[0], *names[-3:]]


async def test_a_store_waits_for_a_place_while_others_are_at_work_and_opens_beside_them_in_the_end(tmp_path: Path) -> None:
    patience_s = 0.2
    async with open_ada(tmp_path, keeping=Keeping(idle_s=3600, open_max=4, patience_s=patience_s)) as ada:
        names = [f"group {number}" for number in range(6)]
        for name in names:
            await ada.group_create(user=None, name=name, description=None)
        async with AsyncExitStack() as at_work:
            for name in names[:4]:
                await at_work.enter_async_context(group_of(ada, name).use())
            begun_s = trio.current_time()
            async with group_of(ada, names[4]).use():
                assert trio.current_time() - begun_s >= patience_s
                assert ada.open_stores() == 5
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_use_once, group_of(ada, names[5]))
                await at_work.aclose()
        await until(lambda: ada.open_stores() <= 4)


async def test_who_waits_for_a_store_to_be_closed_goes_on_when_the_node_ends_before_the_store_has_a_place(tmp_path: Path) -> None:
    """As who joins does: it deletes the file of the group, whatever cancels it, and the node would wait for it for ever."""
    failures: list[str] = []

    async def open_late(group: Group) -> None:
        try:
            await group.store.open()
        except PeersdError as error:
            failures.append(error.code)

    async with trio.open_nursery() as others:
        with trio.CancelScope() as node_scope:
            async with open_ada(tmp_path, keeping=Keeping(idle_s=3600, open_max=4, patience_s=3600)) as ada:
                names = [f"group {number}" for number in range(5)]
                for name in names:
                    await ada.group_create(user=None, name=name, description=None)
                late = next(group for name in names if (group := group_of(ada, name)).opened is None)
                for name in names:
                    group_of(ada, name).store.note_use(1)  # for good
                others.start_soon(open_late, late)
                await trio.testing.wait_all_tasks_blocked()
                others.start_soon(partial(late.store.close, for_good=True))
                await trio.testing.wait_all_tasks_blocked()
                node_scope.cancel()
                await trio.sleep_forever()
        others.cancel_scope.deadline = trio.current_time() + 60
    assert failures == ["busy"]
    assert not others.cancel_scope.cancelled_caught


async def _use_once(group: Group) -> None:
    async with group.use():
        pass


async def test_stores_beyond_the_places_are_closed_when_idle_and_the_handles_with_them(tmp_path: Path) -> None:
    crowd = Keeping(idle_s=3600, open_max=8)
    async with open_ada(tmp_path, keeping=crowd) as ada:
        names = [f"group {number}" for number in range(40)]
        for name in names:
            await ada.group_create(user=None, name=name, description=None)
        groups = [group_of(ada, name) for name in names]

        await until(lambda: ada.open_stores() <= 8)
        settled = file_handles(os.getpid())
        async with trio.open_nursery() as nursery:
            done = trio.Event()

            async def use(name: str) -> None:
                async with group_of(ada, name).use() as opened:
                    await done.wait()
                    assert group_of(ada, name).opened is opened

            for name in names:
                nursery.start_soon(use, name)
            await until(lambda: all(group.opened is not None for group in groups))
            for _ in range(3):  # one that nobody uses is closed meanwhile, by the same rule
                await ada.user(None).personal.store.open()
                await until(lambda: ada.user(None).personal.opened is None)
            peak = file_handles(os.getpid())
            done.set()
        await until(lambda: ada.open_stores() <= 8)
        assert peak > settled + 60
        await until(lambda: file_handles(os.getpid()) <= settled + 8)


# --- What a start finds ---------------------------------------------------------------------------------------------------------


async def test_after_a_stop_in_good_order_the_next_start_opens_no_group(tmp_path: Path) -> None:
    async with open_ada(tmp_path, keeping=Keeping()) as ada:
        for name in ("idle", "written last"):
            await ada.group_create(user=None, name=name, description=None)
            await ada.sql_execute(user=None, group=name, sql=NOTE, params=(), timeout_s=60)
        await write(ada, "written last", "just before the stop")
        groups = [group_of(ada, name) for name in ("idle", "written last")]
        assert all(group.opened for group in groups)  # so it is the stop that closes them
    originals = [spoil(group) for group in groups]
    async with open_ada(tmp_path) as ada:
        for group, name in zip(groups, ("idle", "written last"), strict=True):
            assert group_of(ada, name).summary == group.summary
            assert group_of(ada, name).is_current
        listed = await ada.group_list(user=None, include_hidden=True)
        assert [(group["name"], group["state"]) for group in listed] == [("ada", "ok"), ("idle", "ok"), ("written last", "ok")]
        for group, original in zip(groups, originals, strict=True):
            group.path.write_bytes(original)
        assert await texts(ada, "written last") == ["just before the stop"]


async def test_a_write_acknowledged_while_the_node_stops_is_in_what_the_next_start_knows_without_the_file(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for round_ in range(5):
        async with trio.open_nursery() as nursery, open_ada(tmp_path, keeping=Keeping()) as ada:
            if not round_:
                await ada.group_create(user=None, name="one", description=None)
                await ada.sql_execute(user=None, group="one", sql=NOTE, params=(), timeout_s=60)
            group = group_of(ada, "one")
            stated = await group.digest()
            assert round_ == 0 or stated.digest == (await group.store.open()).first_digest  # as the last stop left it
            told = len(acknowledged)

            async def write_on(ada: ApiNode = ada, name: str = f"{round_}") -> None:
                with suppress(PeersdError):  # it stops
                    for number in range(100_000):
                        await write(ada, "one", f"{name} {number}")
                        acknowledged.append(f"{name} {number}")

            for _ in range(4):
                nursery.start_soon(write_on)
            await until(lambda told=told: len(acknowledged) > told + 20)  # type: ignore[misc]
    async with open_ada(tmp_path) as ada:
        group = group_of(ada, "one")
        saved = group.summary.digest
        assert group.is_current
        assert saved == (await group.store.open()).first_digest
        assert set(acknowledged) <= set(await texts(ada, "one"))


async def test_a_start_looks_into_a_file_that_was_not_closed_in_good_order(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        for name in ("sound", "cut off"):
            await ada.group_create(user=None, name=name, description=None)
            await ada.sql_execute(user=None, group=name, sql=NOTE, params=(), timeout_s=60)
        await until(lambda: not ada.open_stores())
        sound, cut_off = group_of(ada, "sound"), group_of(ada, "cut off")
        outdated = cut_off.summary.encode()
        await write(ada, "cut off", "after the summary")
        await until(lambda: cut_off.opened is None and cut_off.is_current)
        # What a power cut leaves of a store that is open: the summary of before, and no mark.
        ada.local.save_summary(cut_off.id, outdated, cut_off.path)
        ada.local.clear_mark(cut_off.id)
        original = spoil(sound)
    async with open_ada(tmp_path) as ada:
        assert [group_of(ada, group.name).summary for group in (sound, cut_off)] == [sound.summary, cut_off.summary]
        sound.path.write_bytes(original)
        assert await texts(ada, "cut off") == ["after the summary"]


async def test_a_dormant_group_is_read_while_another_program_holds_the_write_lock_of_its_file(tmp_path: Path) -> None:
    async with open_ada(tmp_path, keeping=ON_DEMAND) as ada:
        await ada.group_create(user=None, name="one", description=None)
        await ada.sql_execute(user=None, group="one", sql=NOTE, params=(), timeout_s=60)
        await write(ada, "one", "before")
        group = group_of(ada, "one")
        await until(lambda: group.opened is None)
        locking = apsw.Connection(str(group.path))
        try:
            locking.execute("BEGIN IMMEDIATE")
            for _ in range(3):  # each opens the store and lets it fall asleep again
                assert await texts(ada, "one") == ["before"]
                await until(lambda: group.opened is None)
            listed = await ada.group_list(user=None, include_hidden=True)
            assert [listing["state"] for listing in listed if listing["name"] == "one"] == ["ok"]
        finally:
            locking.close()
        await write(ada, "one", "afterwards")
        assert await texts(ada, "one") == ["afterwards", "before"]


async def test_a_locked_node_db_ends_nothing_and_what_it_did_not_take_is_looked_up_in_the_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_two(tmp_path, "one") as two:
        await two.rest()
        group = group_of(two.ben, "one")
        async with group.use():
            locking = apsw.Connection(str(tmp_path / "ben" / "node.db"))
            locking.set_busy_timeout(10_000)  # the node may be writing to it
            locking.execute("BEGIN IMMEDIATE")
            await write(two.ada, "one", "meanwhile")
            await until(lambda: group.summary.digest != group_of(two.ada, "one").summary.digest)
        await until(lambda: "group_not_closed" in caplog.messages)
        locking.close()
        await write(two.ben, "one", "afterwards")
        await two.rest()
        assert [await texts(node, "one") for node in two.nodes] == [["afterwards", "meanwhile"]] * 2


async def test_a_closed_store_whose_file_another_program_holds_catches_up_on_the_same_channel_and_is_not_called_equal(
    tmp_path: Path,
) -> None:
    async with open_two(tmp_path, "held") as two:
        await two.rest()
        channels = two.channels()
        group = group_of(two.ben, "held")
        locking = apsw.Connection(str(group.path))
        locking.execute("BEGIN IMMEDIATE")
        await write(two.ada, "held", "meanwhile")
        await until(lambda: group.opened is not None and group.opened.sync.stalled == "busy")
        assert list(group.lanes().values()) == [False]
        locking.execute("ROLLBACK")
        locking.close()
        await two.rest()
        assert [await texts(node, "held") for node in two.nodes] == [["meanwhile"]] * 2
        assert two.channels() == channels


async def test_a_damaged_file_is_found_when_something_needs_it_and_harms_no_other_group(tmp_path: Path, errors: set[str]) -> None:
    errors.add("group_not_opened")
    async with open_two(tmp_path, "damaged", "sound") as two:
        await two.rest()
        at_ben = group_of(two.ben, "damaged")
        spoil(at_ben)
        assert at_ben.store.failure is None
        await write(two.ada, "damaged", "to nobody")
        await until(lambda: at_ben.store.failure == "store_corrupt")
        for node, name in ((two.ada, "ada"), (two.ben, "ben")):
            await write(node, "sound", f"by {name}")
        await two.rest("sound")
        assert [await texts(node, "sound") for node in two.nodes] == [["by ada", "by ben"]] * 2
        listed = {group["name"]: group["state"] for group in await two.ben.group_list(user=None, include_hidden=True)}
        assert listed == {"ben": "ok", "damaged": "corrupt", "sound": "ok"}
        with pytest.raises(PeersdError) as failed:
            await write(two.ben, "damaged", "nowhere")
        assert failed.value.code == "store_corrupt"
        assert await texts(two.ada, "damaged") == ["to nobody"]
