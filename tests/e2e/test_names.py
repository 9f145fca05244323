"""Names that have broken programs: taken or refused for groups, users and devices, shown escaped, and never part of a path."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.cli.main import main
from peersd.cli.tables import escape
from peersd.client import Peers, PeersError
from peersd.node.api_node import open_node
from peersd.testing.pairs import until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon
from peersd.testing.teams import NOTE, redeem, refused
from peersd_protocol.constants import NAME_CHARS_MAX
from peersd_protocol.names import is_name

pytestmark = pytest.mark.e2e

RunPeers = Callable[..., Awaitable[str]]

BLNS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "blns.json"

NASTY = [
    "personal",
    "null",
    "None",
    "0",
    "-",
    "--help",
    "-rf *",
    ".",
    "..",
    "../../../../etc/passwd",
    "/",
    "/dev/null",
    "a/b\\c",
    "CON",
    "user-x.db",
    "%2e%2e%2f%00",
    "%s%n%(x)s{0}{x}",
    "'; DROP TABLE peers_groups; --",
    '"quoted" `ls` $(touch here) ${HOME}',
    "<script>alert(1)</script>",
    "\\x1b[2J\\u202e",
    "e\u0301 is \u00e9 in normal form",
    "zero\u200bwidth soft\u00adhyphen",
    "\u3164",
    "\u2800\u115f",
    "田中さん 👩‍👩‍👧 🇺🇸 \u2764\ufe0f",
    "הָיְתָה test الصفحات",
    "Z̮̞̠͙͔ͅA̗̻L̖̠̮͔G̗O̗",
    "grp-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "x" * 128,
    "",
    " ",
    " a",
    "a ",
    "\u3000a",
    "a\tb",
    "a\nb",
    "a\x00b",
    "\x1b[31m",
    "\x7f",
    "\x9b",
    "a\u2028b",
    "\u202eesrever",
    "\u2066a",
    "\u200e",
    "\ufeff",
    "\ud800",
    "x" * 129,
]

PERSONAL = "personal"
"""What users and devices may be called, and a group may not: it always means the personal group."""

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Categories of characters without a shape."""

FILES = re.compile(
    r"(lock|peersd\.sock|device\.key|marks|node\.db(-wal|-shm)?|(user|group)-[a-z2-7]+\.db(-wal|-shm)?|marks/(user|group)-[a-z2-7]+\.mark)"
)
"""All that a data folder may hold: nothing of it is made from a name."""


def taken_as(name: str, characters_max: int = 128) -> str | None:
    """What a name is kept as; None for one that is refused."""
    normal = unicodedata.normalize("NFC", name)
    return normal if is_name(normal) and normal == normal.strip() and len(normal) <= characters_max else None


def assert_no_path(*folders: Path) -> None:
    """Nothing but what belongs there is in these daemons' folders, and nothing else beside them."""
    for folder in folders:
        assert {path.name for path in folder.iterdir()} <= {"data", "log", "peersd.toml"}
        strange = [path for path in (folder / "data").rglob("*") if not FILES.fullmatch(str(path.relative_to(folder / "data")))]
        assert strange == []


def names_of_path(base: Path) -> list[str]:
    """Names that would make the file `made` in a folder of the test's if one took them for a path or a command."""
    made = base / "made"
    named = [str(made), f"$(touch {made})", f";touch {made};", f"`touch {made}`", "../made", "../../made"]
    return [name for name in named if taken_as(name)]


@pytest.fixture
def peers(capsys: pytest.CaptureFixture[str]) -> RunPeers:
    """Runs `peers`, which must succeed, in this process; what it wrote."""

    async def run(daemon: DaemonProcess, *arguments: str) -> str:
        assert await trio.to_thread.run_sync(main, ["--socket", str(daemon.socket), *arguments]) == 0
        return capsys.readouterr().out

    return run


def assert_escaped(shown: str) -> None:
    """No character in what a command wrote could move a cursor or hide."""
    assert [c for c in shown.replace("\n", "") if unicodedata.category(c) in HIDDEN or c in "\u115f\u2800\u3164"] == []


async def rename_to_all(client: Peers, group_id: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names a group in turn; the names as they were kept, and those refused. Whatever else comes of one fails the test."""
    kept: list[str] = []
    not_taken: list[str] = []
    for name in names:
        expected = None if name == PERSONAL else taken_as(name)
        if expected is None:
            with pytest.raises(PeersError) as caught:
                await client.update_group(group_id, name=name)
            told = caught.value
            assert (told.code, told.data["parameter"], bool(told.hint)) == ("invalid_params", "name", True), repr(name)
            not_taken.append(name)
        else:
            assert (await client.update_group(group_id, name=name))["name"] == expected, repr(name)
            kept.append(expected)
    return kept, not_taken


async def check_group_names(tmp_path: Path, names: list[str], peers: RunPeers) -> tuple[int, int, str]:
    """All of it, in one daemon; how many names were taken, how many refused, and what `peers groups` showed."""
    async with open_daemon(tmp_path, "ada") as ada:
        await ada.call("init", user_name="ada")
        group_id = (await ada.call("group.create", name="first"))["group_id"]
        async with ada.client() as client:
            kept, not_taken = await rename_to_all(client, group_id, [*names, *names_of_path(tmp_path)])
            # Those that show as something else than they are get a group each; so do the shortest, which look like something.
            telling = list(dict.fromkeys(name for name in kept if escape(name) != name or len(name) < 24))[:40]
            for name in telling:
                made = await client.create_group(name)
                if name != kept[-1]:
                    assert (await client.show_group(name))["group_id"] == made, repr(name)
            listed = [group["name"] for group in await client.groups() if group["kind"] == "group"]
            assert sorted(listed) == sorted([kept[-1], *telling])
        shown = await peers(ada, "groups")
        assert_escaped(shown)
        assert shown.count("\n") == len(telling) + 4  # two lines of titles, the personal group, and the first one
        for name in telling:
            assert f"\n{escape(name)} " in shown, repr(name)
        assert json.loads(await peers(ada, "groups", "--json"))[-1]["name"] == listed[-1]
        await ada.restart()
        assert [group["name"] for group in await ada.call("group.list") if group["kind"] == "group"] == listed
        assert ada.log().isascii()
        assert_no_path(ada.folder)
        assert {path.name for path in tmp_path.iterdir()} == {"ada"}
    return len(kept), len(not_taken), shown


async def test_a_groups_name_is_taken_or_refused_shown_escaped_and_no_path(tmp_path: Path, peers: RunPeers) -> None:
    taken, not_taken, shown = await check_group_names(tmp_path, NASTY, peers)
    assert taken >= 29 and not_taken == 19
    for name in (
        "zero\\u200bwidth soft\\xadhyphen",
        "\\u3164",
        "\\u2800\\u115f",
        "../../../../etc/passwd",
        "\\x1b[2J\\u202e",
        "--help",
    ):
        assert f"\n{name} " in shown


async def test_every_naughty_string_is_a_groups_name_or_refused(tmp_path: Path, peers: RunPeers) -> None:
    if not BLNS.exists():
        pytest.skip("the external vectors are not beside the checkout: blns.json")
    taken, not_taken, _ = await check_group_names(tmp_path, json.loads(BLNS.read_text("utf-8")), peers)
    assert taken > 450 and not_taken > 20


async def test_a_name_that_no_user_or_device_may_have_makes_none(tmp_path: Path) -> None:
    names = NASTY + (json.loads(BLNS.read_text("utf-8")) if BLNS.exists() else [])
    async with open_daemon(tmp_path, "ada") as ada, ada.client() as client:
        refusals = 0
        for name in names:
            for parameter, characters_max in (("user_name", 128), ("device_name", NAME_CHARS_MAX)):
                if taken_as(name, characters_max) is not None:
                    continue
                with pytest.raises(PeersError) as caught:
                    await client.call("init", **{"user_name": "ada", "device_name": "laptop", parameter: name})
                told = caught.value
                assert (told.code, told.data["parameter"], bool(told.hint)) == ("invalid_params", parameter, True), repr(name)
                refusals += 1
        assert refusals >= 36
        assert (await client.status())["device_id"] is None
        assert not (ada.data / "device.key").exists()
        assert (await client.init("ada", "laptop"))["user_id"]


async def test_users_and_devices_may_be_called_anything_that_a_name_may_be(tmp_path: Path) -> None:
    names = [name for name in NASTY if taken_as(name, NAME_CHARS_MAX)]
    if BLNS.exists():
        naughty = [name for name in json.loads(BLNS.read_text("utf-8")) if taken_as(name, NAME_CHARS_MAX)]
        names += naughty[::40]  # of each kind some: every one is a node of its own
    for number, name in enumerate([*names, *names_of_path(tmp_path)]):
        data = tmp_path / f"{number}" / "data"
        data.mkdir(parents=True)
        device = name if taken_as(name, NAME_CHARS_MAX) else "laptop"
        for _ in range(2):
            async with open_node(data, listen=[]) as node:
                if not node.users:
                    await node.init(user_name=name, device_name=device)
                status: Any = await node.status()
                assert (status["users"][0]["name"], status["device_name"]) == (name, device)
        assert_no_path(data.parent)
    assert not (tmp_path / "made").exists()


async def test_what_others_call_themselves_is_shown_escaped(tmp_path: Path, peers: RunPeers) -> None:
    user, device, group = "../ben\u200b\u00ad", "\u2800; rm -rf *\u3164", "team\u200d\u2060"
    async with open_daemon(tmp_path, "ada") as ada, open_daemon(tmp_path, "ben") as ben:
        await ada.call("init", user_name="ada", device_name="laptop")
        await ben.call("init", user_name=user, device_name=device)
        await ada.call("group.create", name=group)
        await ada.call("sql.execute", sql=NOTE)
        assert await redeem(ben, (await ada.call("invite.create"))["ticket"]) == "writer"
        await ada.call("sync.wait", timeout_s=HANG_S)
        for command in (["links"], ["members"], ["sync"], ["groups"], ["group", "show"], ["invite", "list"], ["schema"]):
            shown = await peers(ada, *command)
            assert_escaped(shown)
            for name in {"links": (user, device), "members": (user, device), "sync": (device, group), "group": (group,)}.get(
                command[0], ()
            ):
                assert escape(name) in shown, command
        for command in (["status"], ["devices"], ["members"]):
            shown = await peers(ben, *command)
            assert_escaped(shown)
            assert escape(device) in shown, command
        # Names choose what they name, as they are and not as they are shown.
        assert (await refused(ada, "member.remove", user=escape(user))).code == "user_not_found"
        await ada.call("ban.add", user=user, reason="no\u200bname")
        assert_escaped(await peers(ada, "members", "--left"))
        shown = await peers(ada, "ban", "list")
        assert_escaped(shown)
        assert escape(user) in shown and "no\\u200bname" in shown

        async def is_out() -> bool:
            return bool((await ben.call("group.list", include_hidden=True))[-1]["state"] == "banned")

        await until(is_out)
        assert_escaped(await peers(ben, "groups", "--all"))
        for daemon in (ada, ben):
            assert daemon.log().isascii()
        assert_no_path(ada.folder, ben.folder)
