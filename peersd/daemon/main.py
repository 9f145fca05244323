"""The command `peersd`."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from peersd import crash_points
from peersd.daemon.config import Config, ConfigError, load_config
from peersd.daemon.logs import start_logging
from peersd.errors import PeersdError

FILES_WANTED: Final = (65_536, 10_240)
"""Open files at most: thousands of groups, and sockets (guess); or what macOS takes whatever its hard limit says."""

SWITCH_S: Final = 0.0005
"""How long a thread that computes, such as one that applies bulk, may keep the event loop from going on. Python's own 5 ms passed
at each of the loop's waits: changes beside a catch-up had a p99 of 13 ms in place of 10; bulk is as fast (measured)."""

ARENAS_MAX: Final = 2
_M_ARENA_MAX: Final = -8
"""From glibc's malloc.h."""

COLLECT_EVERY: Final = 10_000
"""Containers made and not freed before Python looks for cycles. Its own 700 is passed thrice by each transaction of 1,000 rows
(measured: a twentieth of the processor's time of all writes)."""

EXAMPLES: Final = """\
examples:
  peersd run
  peersd run --listen ws://0.0.0.0:7331 --data ~/second --socket ~/second/peersd.sock
  peersd run --advertise wss://peers.example.org --config /etc/peersd.toml

The file is TOML, with the keys data, socket, listen, advertise, and [links] max, deny. Flags go before it.
Then, in another terminal: peers init --user NAME
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 (could not run, or ended by force), 2 (usage or configuration)."""
    arguments = _parser().parse_args(argv)
    try:
        config = load_config(
            file=arguments.config,
            data=arguments.data,
            socket=arguments.socket,
            listen=arguments.listen,
            advertise=arguments.advertise,
        )
        crash_points.arm(os.environ.get(crash_points.VARIABLE, ""))
    except (ConfigError, ValueError) as error:
        print(f"peersd: {error}", file=sys.stderr)
        return 2
    return _run(config)


def _run(config: Config) -> int:
    # Imported here so that --help and mistakes of usage do not wait for SQLite and cryptography to load.
    import trio

    from peersd.daemon.lock import lock_data_folder
    from peersd.daemon.process import run_daemon
    from peersd.node import open_node

    os.umask(0o077)
    _raise_file_limit()
    _limit_arenas()
    _collect_less()
    sys.setswitchinterval(SWITCH_S)
    start_logging()
    status = 0
    try:
        with lock_data_folder(config.data):
            trio.run(run_daemon, config, open_node)
    except* PeersdError as group:
        _tell(group)
        status = 1
    except* KeyboardInterrupt:
        status = 1
    return status


def _raise_file_limit() -> None:
    """Takes what the system allows: each open group holds some files, and the usual soft limit of 1,024 ends near 300 groups."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for files in FILES_WANTED:
        wanted = files if hard == resource.RLIM_INFINITY else min(hard, files)
        if soft >= wanted:
            return
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _limit_arenas() -> None:
    """Has glibc serve all threads from few arenas; other systems have no such thing.

    Each thread that opens a store would else leave what it freed in an arena of its own (measured: after 300 groups were all
    opened once, 131 MiB in place of 192).
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS_MAX)


def _collect_less() -> None:
    """Has Python look for cycles seldom, and never among what was loaded: nearly all that a daemon makes has none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


def _tell(group: BaseExceptionGroup[PeersdError]) -> None:
    for error in group.exceptions:
        if isinstance(error, PeersdError):
            hint = f"\n  hint: {error.hint}" if error.hint else ""
            print(f"peersd: {error.message}{hint}", file=sys.stderr)
        else:
            _tell(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peersd",
        description="The peersd daemon: shares SQLite databases between devices and people, without a server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"peersd {version('peersd')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run in the foreground until SIGTERM or `peers stop`",
        description="Run the daemon in the foreground, logging to standard error; systemd (Type=notify) is told when ready.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--listen", action="append", default=[], metavar="URL", help="ws://ADDRESS:PORT, may be repeated")
    run.add_argument("--advertise", action="append", default=[], metavar="URL", help="what others dial; may be repeated")
    run.add_argument("--config", type=Path, metavar="FILE", help="a TOML file")
    run.add_argument("--data", metavar="FOLDER", help="the data folder ($PEERSD_DATA, ~/.local/share/peersd)")
    run.add_argument("--socket", metavar="PATH", help="the socket of the local API ($PEERSD_SOCKET)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
