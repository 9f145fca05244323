"""`peers events`: a line for each thing that happens, until interrupted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from peersd.cli.output import write_text
from peersd.cli.tables import escape, format_cell
from peersd.client import Peers
from peersd.client.values import encode_json

EVENT_KINDS: Final = ("link_up", "link_down", "group_joined", "group_left", "member_changed", "rows_changed", "alarm")


async def events(peers: Peers, arguments: argparse.Namespace) -> None:
    """`peers events`: writes by itself, as events come."""
    left: int | None = arguments.count
    async with peers.events(arguments.kinds) as happening:
        if not arguments.json:
            sys.stderr.write("waiting for events; interrupt to end\n")
            sys.stderr.flush()
        async for event in happening:
            line = encode_json(event, ascii_only=True) if arguments.json else _words(event)
            if not write_text(line + "\n"):
                return
            if left is not None:
                left -= 1
                if left == 0:
                    return


def _words(event: Mapping[str, Any]) -> str:
    more = [f"{escape(name)}={format_cell(value)}" for name, value in event.items() if name not in ("kind", "at", "subscription")]
    return "  ".join([format_cell(event["at"]), format_cell(event["kind"]), *more])
