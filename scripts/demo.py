"""The main job from beginning to end, on this machine alone.

Three users with a daemon each, and three groups: the workshop of all three, the trip of ada and bob, the garden of bob and cem.
At first ada's device may not link to cem's, so that what they share passes through bob's. All write at once; then 20,000 rows in
bulk, with bob's daemon killed in the middle and started again. When ada's device may link to cem's, the two find each other by
themselves. What came of it is then counted where peersd has no say: connections in the operating system's table, rows in the
SQLite files. The exit status is 1 if anything differs from what it should be.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path

import trio

from peersd.client import Peers, PeersError, SqlParams
from peersd.testing.processes import DaemonProcess
from scripts.daemon_process import open_daemon, run_until_interrupted
from scripts.demo_story import WAIT_S, Story, print_table
from scripts.machine_view import count_rows, digest_rows, list_tcp_connections

WORKSHOP, TRIP, GARDEN = "workshop", "trip", "garden"
MEMBERS = {WORKSHOP: ("ada", "bob", "cem"), TRIP: ("ada", "bob"), GARDEN: ("bob", "cem")}
PEOPLE = MEMBERS[WORKSHOP]

TABLES = {
    WORKSHOP: (
        "CREATE TABLE item (id TEXT PRIMARY KEY DEFAULT (uuid7()), owner TEXT, n INTEGER)",
        "CREATE TABLE bulk (id BLOB PRIMARY KEY, note TEXT, amount INTEGER)",
    ),
    TRIP: ("CREATE TABLE packing (id TEXT PRIMARY KEY DEFAULT (uuid7()), thing TEXT)",),
    GARDEN: ("CREATE TABLE plant (id TEXT PRIMARY KEY DEFAULT (uuid7()), name TEXT)",),
}
DIARY_SQL = "CREATE TABLE diary (id TEXT PRIMARY KEY DEFAULT (uuid7()), line TEXT)"

SINGLE_ROWS = 200
"""Rows that each side writes one by one while the others do the same."""
BULK_ROWS = 20_000
BULK_BATCH_ROWS = 500
KILL_AT_ROWS = BULK_ROWS // 4
ROWS = {(WORKSHOP, "item"): 3 * SINGLE_ROWS + 1, (WORKSHOP, "bulk"): BULK_ROWS, (TRIP, "packing"): 2, (GARDEN, "plant"): 2}
"""What every member's file holds at the end."""
GROUP_COLUMNS = ("name", "kind", "role", "members", "state", "in_sync")

Daemons = Mapping[str, DaemonProcess]


async def find_path(daemon: DaemonProcess, group: str) -> str:
    """The SQLite file of a group on a device."""
    async with daemon.client() as peers:
        return str((await peers.show_group(group))["path"])


async def join(story: Story, inviter: DaemonProcess, joiner: DaemonProcess, group: str, role: str) -> None:
    """Brings a user into a group by a ticket."""
    async with inviter.client() as peers:
        ticket = str((await peers.create_invite(group, role=role))["ticket"])
    story.say(f"  {inviter.folder.name} makes a ticket of {len(ticket)} characters and hands it to {joiner.folder.name}")
    await story.run_peers(joiner, "join", ticket)


async def set_up(story: Story, daemons: Daemons) -> None:
    """The users with their personal groups; the groups of ada and bob, with their tables."""
    ada, bob = daemons["ada"], daemons["bob"]
    for name, daemon in daemons.items():
        await story.run_peers(daemon, "init", "--user", name.capitalize(), "--device", f"{name}-laptop")
        await story.run_peers(daemon, "sql", "-g", "personal", DIARY_SQL)
        await story.run_peers(daemon, "sql", "-g", "personal", "INSERT INTO diary (line) VALUES ('for me alone')")
    for group, maker in ((WORKSHOP, ada), (TRIP, ada), (GARDEN, bob)):
        await story.run_peers(maker, "group", "create", group)
        for sql in TABLES[group]:
            await story.run_peers(maker, "sql", "-g", group, sql)
    # A moderator may invite others, as bob will.
    await join(story, ada, bob, WORKSHOP, "moderator")
    await join(story, ada, bob, TRIP, "writer")
    await story.run_peers(ada, "sql", "-g", WORKSHOP, "INSERT INTO item (owner, n) VALUES ('ada', 0)")
    await story.wait("rows of the new table in bob's file", partial(count_rows, await find_path(bob, WORKSHOP), "item"), 1)


async def deny(story: Story, daemons: Daemons) -> None:
    """Ada's device gets a configuration that forbids links to cem's."""
    async with daemons["cem"].client() as peers:
        device = str((await peers.status())["device_id"])
    daemons["ada"].configure(deny=[device])
    await daemons["ada"].reload()
    story.say(f"  ada's configuration says [links] deny = [{device[:12]}…]; SIGHUP, and the daemon has read it")


async def bring_cem_in(story: Story, daemons: Daemons) -> None:
    """Cem joins two groups through bob, and gets what ada wrote though there is no link to her."""
    bob, cem = daemons["bob"], daemons["cem"]
    await join(story, bob, cem, WORKSHOP, "writer")
    await join(story, bob, cem, GARDEN, "writer")
    await story.wait("ada's rows in cem's file, by way of bob", partial(count_rows, await find_path(cem, WORKSHOP), "item"), 1)
    for name, group, sql in (
        ("ada", TRIP, "INSERT INTO packing (thing) VALUES ('tent')"),
        ("bob", TRIP, "INSERT INTO packing (thing) VALUES ('stove')"),
        ("bob", GARDEN, "INSERT INTO plant (name) VALUES ('quince')"),
        ("cem", GARDEN, "INSERT INTO plant (name) VALUES ('fig')"),
    ):
        await story.run_peers(daemons[name], "sql", "-g", group, sql)
    for name, linked in (("ada", ["Bob"]), ("bob", ["Ada", "Cem"]), ("cem", ["Bob"])):
        await story.wait_for(f"{name} has links to", partial(list_linked_users, daemons[name]), linked)


async def list_linked_users(daemon: DaemonProcess) -> list[str]:
    """The users of all links of a device, one entry for each link."""
    return sorted(str(name) for link in await daemon.links() for name in link["user_names"])


async def write_single_rows(peers: Peers, owner: str) -> None:
    """Row by row, each durable before the next."""
    for n in range(1, SINGLE_ROWS + 1):
        await peers.execute("INSERT INTO item (owner, n) VALUES (?, ?)", [owner, n], group=WORKSHOP)


async def write_at_once(story: Story, daemons: Daemons, paths: Mapping[str, str]) -> None:
    """All three write at the same time."""

    async def write(name: str) -> None:
        async with daemons[name].client() as peers:
            await write_single_rows(peers, name)

    async with trio.open_nursery() as nursery:
        for name in daemons:
            nursery.start_soon(write, name)
    for name, path in paths.items():
        await story.wait(f"rows in {name}'s file", partial(count_rows, path, "item"), ROWS[WORKSHOP, "item"])


async def write_bulk(story: Story, daemon: DaemonProcess, killed: trio.Event) -> None:
    """All bulk rows, some hundreds in each transaction; the second half once bob was killed, however fast the machine is."""
    sql = "INSERT INTO bulk (id, note, amount) VALUES (?, ?, ?)"
    async with daemon.client() as peers:
        for first in range(0, BULK_ROWS, BULK_BATCH_ROWS):
            if first >= BULK_ROWS // 2:
                await killed.wait()
            rows: list[SqlParams] = [[os.urandom(16), f"row {n}", n] for n in range(first, first + BULK_BATCH_ROWS)]
            await peers.transaction([{"sql": sql, "params_seq": rows}], group=WORKSHOP)
    story.say(f"  all {BULK_ROWS:,} are acknowledged to ada")


async def kill_in_the_middle(story: Story, bob: DaemonProcess, path_b: str, killed: trio.Event) -> None:
    """Kills bob's daemon once part of the bulk has arrived, and starts it again."""
    await story.wait("bulk rows in bob's file", partial(count_rows, path_b, "bulk"), KILL_AT_ROWS)
    pid = bob.pid
    await bob.kill()
    killed.set()
    held = count_rows(path_b, "bulk")
    story.say(f"kill -9 {pid}: bob's daemon is gone, holding {held:,} of {BULK_ROWS:,} rows")
    story.check("killed in the middle, more than none and less than all", 0 < held < BULK_ROWS, True)
    await bob.start()
    story.say(f"bob's daemon runs again (process {bob.pid})")


async def write_and_kill(story: Story, daemons: Daemons, paths: Mapping[str, str]) -> None:
    """The bulk, with a kill of the one in the middle in its middle."""
    killed = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_in_the_middle, story, daemons["bob"], paths["bob"], killed)
        await write_bulk(story, daemons["ada"], killed)
    for name in ("bob", "cem"):
        await story.wait(f"bulk rows in {name}'s file", partial(count_rows, paths[name], "bulk"), BULK_ROWS)


async def lift_the_deny(story: Story, daemons: Daemons) -> None:
    """Ada's device may link to cem's again, and nobody tells either to."""
    daemons["ada"].configure()
    await daemons["ada"].reload()
    story.say("  ada's configuration denies nobody any more; SIGHUP, and the daemon has read it")
    for name, daemon in daemons.items():
        others = [other.capitalize() for other in daemons if other != name]
        await story.wait_for(f"{name} has links to", partial(list_linked_users, daemon), others)


async def wait_in_sync(daemons: Daemons) -> None:
    """Returns when what each device holds of its groups is durable on the others."""
    for group, members in MEMBERS.items():
        for name in members:
            async with daemons[name].client() as peers:
                await peers.wait_synced(group, timeout_s=WAIT_S)


async def show_outcome(story: Story, daemons: Daemons) -> None:
    """What the daemons say, as tables."""
    devices: list[list[object]] = []
    links: list[list[object]] = []
    groups: list[list[object]] = []
    for name, daemon in daemons.items():
        async with daemon.client() as peers:
            status, linked, listed = await peers.status(), await peers.links(), await peers.groups()
        devices.append([name, status["users"][0]["name"], status["device_name"], status["device_id"][:16] + "…", daemon.pid])
        for link in sorted(linked, key=lambda link: str(link["user_names"])):
            shared = sorted(str(channel["name"]) for channel in link["channels"])
            traffic = [f"{link['bytes_out']:,}", f"{link['bytes_in']:,}"]
            links.append([name, ", ".join(link["user_names"]), link["direction"], ", ".join(shared), *traffic])
            other = str(link["user_names"][0]).lower()
            wanted = sorted(group for group, members in MEMBERS.items() if {name, other} <= set(members))
            story.check(f"groups on the link of {name} and {other}", shared, wanted)
        for group in listed:
            groups.append([name, *(group[key] for key in GROUP_COLUMNS)])
        states = sorted((str(group["name"]), str(group["state"])) for group in listed if group["kind"] == "group")
        story.check(f"groups of {name}", states, sorted((group, "ok") for group in MEMBERS if name in MEMBERS[group]))
    print_table("devices", ["daemon", "user", "device", "id", "process"], devices)
    print_table("links, each seen from both ends", ["daemon", "to", "direction", "groups", "bytes out", "bytes in"], links)
    print_table("groups", ["daemon", *GROUP_COLUMNS], groups)


async def count_in_the_files(story: Story, daemons: Daemons) -> None:
    """Rows and contents by plain SQLite, read-only, from the files."""
    rows: list[list[object]] = []
    for (group, table), wanted in ROWS.items():
        paths = [await find_path(daemons[name], group) for name in MEMBERS[group]]
        counts = [count_rows(path, table) for path in paths]
        digests = [digest_rows(path, table) for path in paths]
        rows.append([group, table, ", ".join(MEMBERS[group]), ", ".join(f"{count:,}" for count in counts), ", ".join(digests)])
        story.check(f"rows of {table} in every member's file", counts, [wanted] * len(paths))
        story.check(f"contents of {table} are equal", len(set(digests)), 1)
    for name, daemon in daemons.items():
        files = list(daemon.data.glob("group-*.db"))
        story.check(f"files of groups at {name}", len(files), sum(name in members for members in MEMBERS.values()))
        personal = list(daemon.data.glob("user-*.db"))
        story.check(f"personal groups at {name}, rows of the diary", [count_rows(path, "diary") for path in personal], [1])
        story.check("rows of a diary in shared groups", sum(count_rows(path, "diary") for path in files), 0)
    print_table("rows, read from the files", ["group", "table", "members", "rows of each", "digest of each"], rows)


def count_connections(story: Story, daemons: Daemons) -> None:
    """TCP connections by the operating system's own table: one for each pair, whatever number of groups it shares."""
    connections = {name: list_tcp_connections(daemon.pid) for name, daemon in daemons.items()}
    for one, other in combinations(daemons, 2):
        far_ends = {(end.remote, end.local) for end in connections[other]}
        between = [end for end in connections[one] if (end.local, end.remote) in far_ends]
        story.check(f"TCP connections between {one}'s process and {other}'s", len(between), 1)
    story.check("TCP connections of each process", [len(ends) for ends in connections.values()], [2, 2, 2])


async def tell_all(story: Story, daemons: Daemons) -> None:
    """Chapter by chapter."""
    running = ", ".join(f"{name}'s (process {daemon.pid})" for name, daemon in daemons.items())
    story.say(f"three daemons run: {running}")
    await set_up(story, daemons)
    story.chapter("ada's device may not link to cem's; cem joins through bob")
    await deny(story, daemons)
    await bring_cem_in(story, daemons)
    paths = {name: await find_path(daemon, WORKSHOP) for name, daemon in daemons.items()}
    story.chapter(f"all three write {SINGLE_ROWS} rows at once into the workshop, each row a transaction of its own")
    await write_at_once(story, daemons, paths)
    story.chapter(f"ada writes {BULK_ROWS:,} rows, {BULK_BATCH_ROWS} in each transaction; bob, through whom they pass, is killed")
    await write_and_kill(story, daemons, paths)
    story.chapter("ada's device may link to cem's: nobody tells them where the other is")
    await lift_the_deny(story, daemons)
    await wait_in_sync(daemons)
    story.chapter("in sync; what came of it:")
    await show_outcome(story, daemons)
    print()
    await count_in_the_files(story, daemons)
    print()
    count_connections(story, daemons)
    for name, daemon in daemons.items():
        story.check(f"exit status of {name}'s daemon after SIGTERM", await daemon.terminate(), 0)
        story.check("errors in its log", daemon.errors(), [])


async def tell(story: Story) -> None:
    """The whole story in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="peersd-demo-") as folder:
        place = Path(folder)
        async with open_daemon(place, "ada") as ada, open_daemon(place, "bob") as bob, open_daemon(place, "cem") as cem:
            try:
                await tell_all(story, {"ada": ada, "bob": bob, "cem": cem})
            except Exception:
                for daemon in (ada, bob, cem):
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
    """Tells the story; 0 if all was as it should be, 1 if not, 2 on wrong usage, 130 after Ctrl-C."""
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(prog="scripts/demo", description=__doc__, formatter_class=formatter).parse_args()
    story = Story()
    try:
        if not run_until_interrupted(partial(tell, story)):
            print("\ninterrupted; all daemons are stopped and the temporary folder is gone", file=sys.stderr)
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
