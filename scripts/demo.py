"""The main job from beginning to end, on this machine alone.

Two daemons of two users, a personal group each, a shared group by ticket, a table made on one side and seen on the other, both
writing at once, 20,000 rows in bulk, one daemon killed in the middle and started again. What came of it is then counted where
peersd has no say: connections in the operating system's table, rows in the SQLite files. The exit status is 1 if anything
differs from what it should be.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import trio

from peersd.client import Peers, PeersError, SqlParams
from peersd.testing.processes import DaemonProcess
from scripts.daemon_process import open_daemon, run_until_interrupted
from scripts.machine_view import count_rows, digest_rows, list_tcp_connections

GROUP = "workshop"
SINGLE_ROWS = 200
"""Rows that each side writes one by one while the other does the same."""
BULK_ROWS = 20_000
BULK_BATCH_ROWS = 500
KILL_AT_ROWS = BULK_ROWS // 4
GROUP_COLUMNS = ("name", "kind", "role", "members", "state", "in_sync")
WAIT_S = 60.0
"""A hang guard for every wait; the whole takes less than half of it."""


class Story:
    """Prints what happens, with the time since the start, and keeps what differed from what it should be."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.failures: list[str] = []

    def say(self, line: str) -> None:
        """One line of the story."""
        print(f"{time.monotonic() - self._began:5.1f} s  {line}", flush=True)

    def check(self, fact: str, found: object, wanted: object) -> None:
        """Shows a fact, and remembers it if it is not as wanted."""
        if found == wanted:
            self.say(f"  ok     {fact}: {found}")
        else:
            self.failures.append(f"{fact}: {found}, should be {wanted}")
            self.say(f"  WRONG  {self.failures[-1]}")

    async def wait(self, what: str, current: Callable[[], int], wanted: int) -> int:
        """Waits until a number reaches `wanted`, showing how it grows; returns what it is then.

        Raises:
            RuntimeError: it does not within the hang guard.
        """
        shown = time.monotonic()
        with trio.move_on_after(WAIT_S):
            while (now := current()) < wanted:
                if time.monotonic() - shown > 0.3:
                    shown = time.monotonic()
                    self.say(f"  {what}: {now:,} …")
                await trio.sleep(0.02)
            self.say(f"  {what}: {now:,}")
            return now
        raise RuntimeError(f"{what}: {current():,} of {wanted:,} after {WAIT_S:.0f} s")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A small table with aligned columns."""
    lines = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


async def run_peers(story: Story, daemon: DaemonProcess, *arguments: str) -> None:
    """Runs `peers` as a user would and shows the command.

    Raises:
        RuntimeError: it ended with another status than 0.
    """
    words = [f'"{word}"' if " " in word else word if len(word) < 60 else word[:24] + "…" for word in arguments]
    story.say(f"{daemon.folder.name}$ peers {' '.join(words)}")
    finished = await daemon.peers(*arguments)
    if finished.status != 0:
        raise RuntimeError(f"peers {arguments[0]} ended with {finished.status}: {finished.err.strip()}")


async def set_up(story: Story, ada: DaemonProcess, bob: DaemonProcess) -> tuple[str, str]:
    """Users, personal rows, the shared group and its tables; returns the group's SQLite file on both sides."""
    diary = "CREATE TABLE diary (id TEXT PRIMARY KEY DEFAULT (uuid7()), line TEXT)"
    for daemon in (ada, bob):
        await run_peers(story, daemon, "init", "--user", daemon.folder.name.capitalize())
        await run_peers(story, daemon, "sql", "-g", "personal", diary)
        await run_peers(story, daemon, "sql", "-g", "personal", "INSERT INTO diary (line) VALUES ('for me alone')")
    await run_peers(story, ada, "group", "create", GROUP)
    async with ada.client() as a, bob.client() as b:
        ticket = str((await a.create_invite(GROUP))["ticket"])
        story.say(f"  ada makes a ticket of {len(ticket)} characters and hands it to bob")
        await run_peers(story, bob, "join", ticket)
        await run_peers(
            story, ada, "sql", "-g", GROUP, "CREATE TABLE item (id TEXT PRIMARY KEY DEFAULT (uuid7()), owner TEXT, n INTEGER)"
        )
        await run_peers(story, ada, "sql", "-g", GROUP, "CREATE TABLE bulk (id BLOB PRIMARY KEY, note TEXT, amount INTEGER)")
        await run_peers(story, ada, "sql", "-g", GROUP, "INSERT INTO item (owner, n) VALUES ('ada', 0)")
        path_a, path_b = [str((await peers.show_group(GROUP))["path"]) for peers in (a, b)]
    await story.wait("rows of the new table in bob's file", partial(count_rows, path_b, "item"), 1)
    return path_a, path_b


async def write_single_rows(peers: Peers, owner: str) -> None:
    """Row by row, each durable before the next."""
    for n in range(1, SINGLE_ROWS + 1):
        await peers.execute("INSERT INTO item (owner, n) VALUES (?, ?)", [owner, n], group=GROUP)


async def write_bulk(peers: Peers) -> None:
    """All bulk rows, some hundreds in each transaction."""
    for first in range(0, BULK_ROWS, BULK_BATCH_ROWS):
        rows: list[SqlParams] = [[os.urandom(16), f"row {n}", n] for n in range(first, first + BULK_BATCH_ROWS)]
        sql = "INSERT INTO bulk (id, note, amount) VALUES (?, ?, ?)"
        await peers.transaction([{"sql": sql, "params_seq": rows}], group=GROUP)


async def kill_in_the_middle(story: Story, bob: DaemonProcess, path_b: str) -> None:
    """Kills bob's daemon once part of the bulk has arrived, and starts it again."""
    await story.wait("bulk rows in bob's file", partial(count_rows, path_b, "bulk"), KILL_AT_ROWS)
    pid = bob.pid
    await bob.kill()
    held = count_rows(path_b, "bulk")
    story.say(f"kill -9 {pid}: bob's daemon is gone, holding {held:,} of {BULK_ROWS:,} rows")
    story.check("killed in the middle, more than none and less than all", 0 < held < BULK_ROWS, True)
    await bob.start()
    story.say(f"bob's daemon runs again (process {bob.pid})")


async def write_and_kill(story: Story, ada: DaemonProcess, bob: DaemonProcess, path_a: str, path_b: str) -> None:
    """Both write at once; then the bulk, with a kill in its middle."""
    story.say(f"both write {SINGLE_ROWS} rows at once, each row a transaction of its own")
    async with ada.client() as a, bob.client() as b, trio.open_nursery() as nursery:
        nursery.start_soon(write_single_rows, a, "ada")
        nursery.start_soon(write_single_rows, b, "bob")
    for name, path in (("ada", path_a), ("bob", path_b)):
        await story.wait(f"rows in {name}'s file", partial(count_rows, path, "item"), 2 * SINGLE_ROWS + 1)
    story.say(f"ada writes {BULK_ROWS:,} rows, {BULK_BATCH_ROWS} in each transaction")
    async with ada.client() as a, trio.open_nursery() as nursery:
        nursery.start_soon(kill_in_the_middle, story, bob, path_b)
        await write_bulk(a)
        story.say(f"  all {BULK_ROWS:,} are acknowledged to ada")
    await story.wait("bulk rows in bob's file", partial(count_rows, path_b, "bulk"), BULK_ROWS)


async def wait_in_sync(daemon: DaemonProcess) -> None:
    """Returns when everything here is durable on the other side."""
    async with daemon.client() as peers:
        await peers.wait_synced(GROUP, timeout_s=WAIT_S)


async def show_outcome(story: Story, ada: DaemonProcess, bob: DaemonProcess) -> None:
    """What the daemons say, as tables."""
    devices: list[list[object]] = []
    links: list[list[object]] = []
    groups: list[list[object]] = []
    for daemon in (ada, bob):
        name = daemon.folder.name
        async with daemon.client() as peers:
            status, linked, listed = await peers.status(), await peers.links(), await peers.groups()
        devices.append([name, status["users"][0]["name"], status["device_name"], status["device_id"][:16] + "…", daemon.pid])
        for link in linked:
            shared = ", ".join(str(channel["name"]) for channel in link["channels"])
            traffic = [f"{link['bytes_out']:,}", f"{link['bytes_in']:,}"]
            links.append([name, ", ".join(link["user_names"]), link["direction"], shared, *traffic])
        story.check(f"links of {name}", len(linked), 1)
        story.check(f"groups on {name}'s link", [c["name"] for link in linked for c in link["channels"]], [GROUP])
        for group in listed:
            groups.append([name, *(group[key] for key in GROUP_COLUMNS)])
        kinds = sorted((str(group["kind"]), str(group["state"])) for group in listed)
        story.check(f"groups of {name}", kinds, [("group", "ok"), ("personal", "ok")])
    print_table("devices", ["daemon", "user", "device", "id", "process"], devices)
    print_table("link", ["daemon", "to", "direction", "groups", "bytes out", "bytes in"], links)
    print_table("groups", ["daemon", *GROUP_COLUMNS], groups)


def count_in_the_files(story: Story, path_a: str, path_b: str) -> None:
    """Rows and contents by plain SQLite, read-only, from the files."""
    rows: list[list[object]] = []
    for table, wanted in (("item", 2 * SINGLE_ROWS + 1), ("bulk", BULK_ROWS)):
        counts = [count_rows(path, table) for path in (path_a, path_b)]
        digests = [digest_rows(path, table) for path in (path_a, path_b)]
        rows.append([table, *counts, *digests])
        story.check(f"rows of {table} in both files", counts, [wanted, wanted])
        story.check(f"contents of {table} are equal", digests[0] == digests[1], True)
    for path in (path_a, path_b):
        personal = list(Path(path).parent.glob("user-*.db"))
        story.check("personal groups in the data folder, rows of the diary", [count_rows(p, "diary") for p in personal], [1])
        story.check("rows of the diary in the shared group", count_rows(path, "diary"), 0)
    print_table("rows, read from the files", ["table", "ada", "bob", "digest ada", "digest bob"], rows)


def count_connections(story: Story, ada: DaemonProcess, bob: DaemonProcess) -> None:
    """TCP connections by the operating system's own table."""
    at_ada, at_bob = list_tcp_connections(ada.pid), list_tcp_connections(bob.pid)
    story.check("TCP connections of ada's process, of bob's", (len(at_ada), len(at_bob)), (1, 1))
    if len(at_ada) == len(at_bob) == 1:
        story.check("both are the two ends of one", at_ada[0], at_bob[0]._replace(local=at_bob[0].remote, remote=at_bob[0].local))


async def tell(story: Story) -> None:
    """The whole story in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="peersd-demo-") as folder:
        place = Path(folder)
        async with open_daemon(place, "ada") as ada, open_daemon(place, "bob") as bob:
            try:
                story.say(f"two daemons run: ada's (process {ada.pid}) and bob's (process {bob.pid})")
                path_a, path_b = await set_up(story, ada, bob)
                await write_and_kill(story, ada, bob, path_a, path_b)
                for daemon in (ada, bob):
                    await wait_in_sync(daemon)
                story.say("in sync; what came of it:")
                await show_outcome(story, ada, bob)
                print()
                count_in_the_files(story, path_a, path_b)
                print()
                count_connections(story, ada, bob)
                for daemon in (ada, bob):
                    story.check(f"exit status of {daemon.folder.name}'s daemon after SIGTERM", await daemon.terminate(), 0)
                    story.check("errors in its log", daemon.errors(), [])
            except Exception:
                for daemon in (ada, bob):
                    daemon.show()
                raise


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside a group of groups; an error alone is its own leaf."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def describe(error: BaseException) -> str:
    """One line of an error, with its hint if it has one."""
    hint = f" ({error.hint})" if isinstance(error, PeersError) and error.hint else ""
    return f"{type(error).__name__}: {error}{hint}"


def main() -> int:
    """Tells the story; 0 if all was as it should be, 1 if not, 130 after Ctrl-C."""
    story = Story()
    try:
        if not run_until_interrupted(partial(tell, story)):
            print("\ninterrupted; both daemons are stopped and the temporary folder is gone", file=sys.stderr)
            return 130
    except Exception as error:  # noqa: BLE001 - the last place where a failure can become one line and a status
        story.failures += [describe(cause) for cause in leaves(error)]
    print()
    if story.failures:
        story.say("NOT as it should be:")
        for failure in story.failures:
            story.say(f"  {failure}")
        return 1
    story.say("everything is as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
