"""SQLite runs beside the event loop: a disk that is slow, or a file that somebody holds locked, stops nothing else."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import apsw
import pytest

from peersd.testing.processes import HANG_S
from tests.node.two_nodes import Two, group_of, open_ada, open_ben, texts, until, write


class Statements:
    """The statements that run on the thread that it was made in.

    Attributes:
        seen: how many ran in any thread.
        here: those that ran in this one, with the file's name.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.here: list[tuple[str, str]] = []
        self._own = threading.get_ident()

    def watch(self, connection: apsw.Connection) -> None:
        """Look at a connection that was just opened."""
        name = Path(connection.filename).name

        def trace(event: dict[str, Any]) -> None:
            self.seen += 1
            if threading.get_ident() == self._own:
                self.here.append((name, str(event["sql"])))

        connection.trace_v2(apsw.SQLITE_TRACE_STMT, trace)


@pytest.fixture
def statements() -> Generator[Statements]:
    found = Statements()
    apsw.connection_hooks.append(found.watch)
    yield found
    apsw.connection_hooks.remove(found.watch)


async def test_nothing_that_nodes_do_with_files_runs_on_the_loops_own_thread(tmp_path: Path, statements: Statements) -> None:
    async with open_ada(tmp_path) as ada:
        async with open_ben(tmp_path) as ben:
            two = Two(ada, ben)
            # From here on: at a start, before anything is served, node.db itself is opened.
            statements.here.clear()
            await two.link()
            await two.share("one", "two")
            await write(ben, "one", "by ben")
            await two.rest()
            assert ben.addresses.of(ada.own_device())
            await ben.group_leave(user=None, group="two")
            await until(lambda: not ben.user(None).untold)
            await ben.group_forget(user=None, group="two")
        await ada.group_create(user=None, name="three", description=None)
        assert await texts(ada, "one") == ["by ben"]
        assert statements.seen > 100 and statements.here == []
    statements.here.clear()
    async with open_ada(tmp_path) as ada:
        assert group_of(ada, "one").copies.book.digest_of(ben.own_device()) is not None
        read = [sql for _, sql in statements.here if "FROM beacon" in sql or "FROM view" in sql]
        assert read == []


async def test_what_beacons_say_waits_while_node_db_is_locked_and_everything_else_goes_on(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        locking = apsw.Connection(str(ada.data_dir / "node.db"))
        locking.set_busy_timeout(10_000)
        locking.execute("BEGIN IMMEDIATE")
        ada.addresses_learned(b"d" * 32, ["ws://192.0.2.1:7330"])
        assert ada.addresses.of(b"d" * 32) == ["ws://192.0.2.1:7330"]
        # The loop goes on.
        assert (await ada.status())["links"] == 0
        locking.execute("ROLLBACK")
        await ada.addresses.save()
        assert locking.execute("SELECT url FROM address").fetchall() == [("ws://192.0.2.1:7330",)]
        locking.close()


async def test_where_a_member_is_survives_the_process_that_joined(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada, open_ben(tmp_path) as ben:
        await ada.group_create(user=None, name="one", description=None)
        made = await ada.invite_create(user=None, group="one", role="writer", expires_in_s=3600, max_uses=1)
        await ben.invite_accept(user=None, ticket=made["ticket"], timeout_s=HANG_S)
        # As a crash now would leave it.
        kept = apsw.Connection(str(ben.data_dir / "node.db"), flags=apsw.SQLITE_OPEN_READONLY)
        addresses = kept.execute("SELECT url FROM address WHERE answered_ms IS NOT NULL").fetchall()
        kept.close()
        assert addresses == [(ada.listen_urls[0],)]
