"""The command line of `peers`: commands, flags, and examples for each."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any, Final, TypeAlias

from peersd.cli import device_commands, group_commands, membership_commands
from peersd.cli.durations import duration_up_to
from peersd.cli.events_command import EVENT_KINDS, events
from peersd.cli.output import Output
from peersd.cli.sql_command import sql
from peersd.client import Peers

Command: TypeAlias = Callable[[Peers, argparse.Namespace], Awaitable[Output | None]]

TIMEOUT_MAX: Final = "1h"
"""The longest that the daemon lets a command wait."""

EXAMPLES: Final = """\
examples:
  peersd run &                          start the daemon
  peers init --user ada                 once, on a new device
  peers group create team
  peers sql "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"
  peers invite create                   prints a ticket; the other side runs: peers join TICKET
  peers sql "SELECT * FROM note"

Exit status: 0, 1 (the daemon said no), 2 (usage), 3 (no daemon).
"""


IN_SYNC: Final = """\
In sync is a group in which nobody else has a device, or where other devices are linked and every one of them holds
exactly what this one holds. The column devices says of each other device by the name of its user whether it holds that
too (equal), or how much of it it lacks: exactly where it is linked, and at most (up to) where it is offline.
"""

ROLES: Final = """\
Each role may do what those before it may:
  reader      read, and leave; admit who has a ticket
  writer      write rows
  moderator   make and revoke invites to lower roles; remove and ban who has a lower role; lift bans
  admin       change tables, the group's name, description and avatar; give lower roles to who has a lower role
  owner       make admins
  founder     make owners; who made the group, and nobody else
Anybody may lower their own role, and nobody can raise it.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; the chosen command stands in `run`, a coroutine function of (peers, arguments)."""
    parser = argparse.ArgumentParser(
        prog="peers",
        description="Talk to the peersd daemon: groups, invites, SQL, sync.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"peers {version('peersd')}")
    _add_common(parser, default=None)
    top = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_device_commands(top)
    _add_group_commands(top)
    _add_membership_commands(top)
    _add_invite_commands(top)
    _add_data_commands(top)
    return parser


def _add_common(parser: argparse.ArgumentParser, default: Any) -> None:
    # They stand before the command or after it; after it, an absent one must not wipe out what stood before.
    common = parser.add_argument_group("everywhere")
    absent = {"default": default} if default is not None else {}
    common.add_argument("--json", action="store_true", help="print the API's answer as JSON", **absent)
    common.add_argument("--data", metavar="FOLDER", help="the daemon's data folder ($PEERSD_DATA)", **absent)
    common.add_argument("--socket", metavar="PATH", help="the daemon's socket ($PEERSD_SOCKET)", **absent)


def _add(parent: Any, name: str, run: Command, help_text: str, examples: str, details: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parent.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + "." + (f"\n\n{details}" if details else ""),
        epilog="examples:\n" + "".join(f"  {line.strip()}\n" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(parser, argparse.SUPPRESS)
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_family(top: Any, name: str, help_text: str) -> Any:
    family = top.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
    _add_common(family, argparse.SUPPRESS)
    return family.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")


def _add_group_flag(parser: argparse.ArgumentParser, missing: str = "the active group") -> None:
    parser.add_argument("-g", "--group", metavar="GROUP", help=f"an id, a prefix of one, a name, or personal; else {missing}")


def _add_device_commands(top: Any) -> None:
    init = _add(
        top,
        "init",
        device_commands.init,
        "make this device's user",
        "peers init --user ada\npeers init --user ada --device laptop",
    )
    init.add_argument("--user", required=True, metavar="NAME", help="your name, as others will see it")
    init.add_argument("--device", metavar="NAME", help="this device's name (the machine's)")
    _add(top, "status", device_commands.status, "show the daemon, its device and users", "peers status\npeers status --json")
    _add(top, "links", device_commands.links, "list the links to other devices", "peers links")
    connect = _add(top, "connect", device_commands.connect, "dial a device's address", "peers connect ws://192.0.2.7:7330")
    connect.add_argument("url", metavar="URL")
    devices_examples = "peers devices\npeers devices --json"
    _add(top, "devices", device_commands.devices, "list your devices", devices_examples)
    disconnect_examples = "peers disconnect phone\npeers disconnect dev-mfrggzdf"
    disconnect = _add(top, "disconnect", device_commands.disconnect, "end the link to a device", disconnect_examples)
    disconnect.add_argument("device", metavar="DEVICE", help="an id, a prefix of one, or a name")
    events_examples = """
        peers events
        peers events --kind link_up --kind link_down
        peers events --kind rows_changed --count 1 --json
    """
    happening = _add(top, "events", events, "tell what happens, a line an event, until interrupted", events_examples)
    happening.add_argument(
        "--kind",
        action="append",
        dest="kinds",
        metavar="KIND",
        choices=EVENT_KINDS,
        help=_one_of(EVENT_KINDS) + "; may be repeated",
    )
    happening.add_argument("--count", type=_count_up_to(10**18), metavar="N", help="end after so many events")
    _add(top, "stop", device_commands.stop, "stop the daemon and wait for its end", "peers stop\npeers stop --data ~/second")


def _add_group_commands(top: Any) -> None:
    groups_examples = "peers groups\npeers groups --all"
    groups = _add(top, "groups", group_commands.groups, "list your groups", groups_examples, IN_SYNC)
    groups.add_argument("--all", action="store_true", help="hidden groups and those left, too")
    family = _add_family(top, "group", "make, show, change, switch and leave groups")
    create = _add(
        family, "create", group_commands.group_create, "make a group", 'peers group create team\npeers group create "Our house"'
    )
    create.add_argument("name", metavar="NAME")
    create.add_argument("--description", metavar="TEXT")
    show_examples = "peers group show\npeers group show team"
    _add_chosen_group(_add(family, "show", group_commands.group_show, "show a group (the active one)", show_examples))
    _add(family, "active", group_commands.group_active, "show which group is the active one", "peers group active")
    switch = _add(family, "switch", group_commands.group_switch, "make a group the active one", "peers group switch team")
    switch.add_argument("group", metavar="GROUP")
    update_examples = """
        peers group update team --name "Our house"
        peers group update --description "Who does what" --avatar house.png
        peers group update team --description "" --no-avatar
    """
    update = _add(family, "update", group_commands.group_update, "change a group's name, description or avatar", update_examples)
    _add_chosen_group(update)
    update.add_argument("--name", metavar="NAME")
    update.add_argument("--description", metavar="TEXT", help="an empty one removes it")
    avatar = update.add_mutually_exclusive_group()
    avatar.add_argument("--avatar", metavar="FILE", help="a picture of at most 64 KiB (- reads standard input)")
    avatar.add_argument("--no-avatar", action="store_true", help="remove it")
    hide_examples = "peers group hide team\npeers group hide team --show"
    hide = _add(family, "hide", group_commands.group_hide, "hide a group from the list, or show it again", hide_examples)
    _add_chosen_group(hide)
    hide.add_argument("--show", action="store_true", help="list it again")
    leave = _add(family, "leave", group_commands.group_leave, "leave a group (the active one)", "peers group leave team")
    _add_chosen_group(leave)
    forget = _add(family, "forget", group_commands.group_forget, "delete the file of a group left", "peers group forget team")
    _add_chosen_group(forget)
    schema = _add(top, "schema", group_commands.schema, "show a group's tables", "peers schema\npeers schema -g team")
    _add_group_flag(schema)


def _add_chosen_group(parser: argparse.ArgumentParser) -> None:
    # Two ways to say the same, as -g works everywhere else; given neither, the active group is meant.
    words = "an id, a prefix of one, a name, or personal; else the active group"
    parser.add_argument("name_or_id", metavar="GROUP", nargs="?", help=words)
    parser.add_argument("-g", "--group", help=argparse.SUPPRESS)


def _add_membership_commands(top: Any) -> None:
    members_examples = "peers members\npeers members -g team --left"
    members = _add(top, "members", membership_commands.members, "list a group's members and their devices", members_examples)
    _add_group_flag(members)
    members.add_argument("--left", action="store_true", help="those who left or were removed, too")
    family = _add_family(top, "member", "change what members may do, and remove them")
    role_examples = "peers member set-role ben moderator\npeers member set-role usr-mfrggzdf reader -g team"
    role = _add(family, "set-role", membership_commands.member_set_role, "give a member another role", role_examples, ROLES)
    _add_user(role)
    role.add_argument(
        "role", metavar="ROLE", choices=membership_commands.ROLE_NAMES, help=_one_of(membership_commands.ROLE_NAMES)
    )
    remove_examples = "peers member remove ben\npeers member remove usr-mfrggzdf -g team"
    _add_user(_add(family, "remove", membership_commands.member_remove, "remove a member", remove_examples))
    family = _add_family(top, "ban", "ban users from a group, lift and list bans")
    add_examples = 'peers ban add ben --reason "sends advertisements"\npeers ban add usr-mfrggzdf -g team'
    add = _add(family, "add", membership_commands.ban_add, "remove a user and let no invite bring them back", add_examples)
    _add_user(add)
    add.add_argument("--reason", metavar="TEXT", help="shown to the members")
    lift = _add(family, "remove", membership_commands.ban_remove, "lift a ban", "peers ban remove usr-mfrggzdf")
    _add_user(lift)
    _add_group_flag(_add(family, "list", membership_commands.ban_list, "list a group's bans", "peers ban list -g team"))


def _add_user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", metavar="USER", help="an id, a prefix of one, or a name")
    _add_group_flag(parser)


def _one_of(words: Sequence[str]) -> str:
    return "one of " + ", ".join(words)


def _add_invite_commands(top: Any) -> None:
    family = _add_family(top, "invite", "make, list and revoke invites")
    create_examples = "peers invite create\npeers invite create -g team --role reader --expires 12h --uses 5"
    create = _add(family, "create", membership_commands.invite_create, "make an invite and print its ticket", create_examples)
    _add_group_flag(create)
    create.add_argument(
        "--role", choices=membership_commands.ROLE_NAMES, default="writer", help="what the joiner becomes (writer)"
    )
    create.add_argument(
        "--expires", type=duration_up_to("3650d"), default="7d", metavar="DURATION", help="such as 30m, 12h, 7d (7d)"
    )
    create.add_argument("--uses", type=_count_up_to(1_000_000), default=1, metavar="N", help="how many may join by it (1)")
    _add_group_flag(_add(family, "list", membership_commands.invite_list, "list a group's invites", "peers invite list -g team"))
    revoke = _add(
        family,
        "revoke",
        membership_commands.invite_revoke,
        "make an invite's ticket worthless",
        "peers invite revoke inv-mfrggzdf",
    )
    revoke.add_argument("id", metavar="ID")
    _add_group_flag(revoke)
    join_examples = "peers join ticket-mfrggzdf…\npbpaste | peers join -"
    join = _add(top, "join", membership_commands.join, "join a group by its ticket (- reads standard input)", join_examples)
    join.add_argument("ticket", metavar="TICKET")
    _add_timeout(join, "30s")


def _add_data_commands(top: Any) -> None:
    sql_examples = """
        peers sql "SELECT * FROM note"
        peers sql -g team "INSERT INTO note (text) VALUES (?)" --param hello
        peers sql "SELECT * FROM note WHERE text = :t" --param :t=hello --csv
        peers sql -f notes.sql --transaction
        echo "SELECT 1" | peers sql -
    """
    parser = _add(top, "sql", sql, "run SQL in a group (- reads standard input)", sql_examples)
    parser.add_argument("sql", metavar="SQL", nargs="?")
    _add_group_flag(parser)
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="VALUE",
        help='for each ?, or :name=VALUE: 42, 4.5, null, "42" and {"$blob": "…"} as in JSON, else text; may be repeated',
    )
    parser.add_argument("-f", "--file", metavar="FILE", help="statements, run one after another up to the first that fails")
    parser.add_argument("--transaction", action="store_true", help="all statements (writes only) or none")
    parser.add_argument("--csv", action="store_true", help="rows as CSV")
    parser.add_argument("--limit", type=_count_up_to(1_000_000), metavar="N", help="rows at most (10000)")
    _add_timeout(parser, "30s")
    sync_examples = "peers sync\npeers sync -g team --wait --timeout 2m"
    sync = _add(top, "sync", device_commands.sync, "show how far other devices are, or wait for them", sync_examples)
    _add_group_flag(sync, "all your groups")
    sync.add_argument("--wait", action="store_true", help="until they durably hold all that this device holds now")
    sync.add_argument("--device", action="append", dest="devices", metavar="DEVICE", help="wait for this one; may be repeated")
    # No default here: it goes with --wait, and who gives it without has meant something else.
    sync.add_argument("--timeout", type=duration_up_to(TIMEOUT_MAX), metavar="DURATION", help="give up waiting after (60s)")


def _count_up_to(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text[:20]) if text.isascii() and text.isdigit() else 0
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
        return number

    return parse


def _add_timeout(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--timeout", type=duration_up_to(TIMEOUT_MAX), default=default, metavar="DURATION", help=f"give up after ({default})"
    )
