"""The command `peers`: parse, ask the daemon, print, exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

import trio

from peersd.cli.arguments import make_parser
from peersd.cli.errors import print_error
from peersd.cli.output import Output, UsageError, write_text
from peersd.cli.tables import escape
from peersd.client import NoDaemon, PeersError, open_client
from peersd.client.values import encode_json

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NO_DAEMON: Final = 3
EXIT_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 (the daemon said no), 2 (usage), 3 (no daemon), 130 (interrupted)."""
    arguments, extra = make_parser().parse_known_args(argv)
    if extra:
        # Here, for argparse would show the usage of `peers` and not of the command.
        arguments.parser.error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        _print(trio.run(_run, arguments), as_json=arguments.json)
        return EXIT_OK
    except UsageError as error:
        print(f"peers: {escape(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except PeersError as error:
        command = arguments.parser.prog
        print_error(error, as_json=arguments.json, command=command, data=arguments.data, socket=arguments.socket)
        if isinstance(error, NoDaemon):
            return EXIT_NO_DAEMON
        return EXIT_USAGE if error.code == "invalid_params" else EXIT_REFUSED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


async def _run(arguments: argparse.Namespace) -> Output | None:
    async with open_client(arguments.socket, data=arguments.data) as peers:
        output: Output | None = await arguments.run(peers, arguments)
        return output


def _print(output: Output | None, *, as_json: bool) -> None:
    if output is None:
        return
    if output.note and not as_json:
        sys.stderr.write(output.note)
    write_text(encode_json(output.answer, ascii_only=True) + "\n" if as_json else output.text)


if __name__ == "__main__":
    sys.exit(main())
