"""Where a swarm is shown: redrawn on a terminal, as plain lines in a pipe, or as JSON lines for programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from peersd.testing.process_swarm import Plan
from peersd.testing.process_swarm_views import SwarmView
from scripts.swarm_table import format_footer, format_rows

EVENTS_SHOWN = 6
TYPED_CHARACTERS_MAX = 200

ALTERNATE_SCREEN, USUAL_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.|.)?")
CANCEL_LINE, BACKSPACES = "\x15", "\x7f\b"


class Output(Protocol):
    """What shows a swarm."""

    def tell(self, line: str) -> None:
        """Something happened."""
        ...

    def start(self, facts: dict[str, Any]) -> None:
        """The daemons run and the groups exist; `facts` is for programs."""
        ...

    def show(self, plan: Plan, view: SwarmView, phase: str) -> None:
        """What it looks like now; `phase` is running or settling."""
        ...

    def typed(self, text: str) -> Sequence[str]:
        """Takes in what came on standard input; the lines that are complete with it."""
        ...

    def end(self, plan: Plan, view: SwarmView | None, lines: Sequence[str], facts: dict[str, Any]) -> None:
        """The last word: the last view, the summary as lines and as facts."""
        ...


class _Lines:
    """Cuts what comes on standard input into lines."""

    def __init__(self) -> None:
        self._rest = ""

    def typed(self, text: str) -> Sequence[str]:
        *lines, self._rest = (self._rest + text).split("\n")
        return lines


class PlainOutput(_Lines):
    """Lines that stay: what happens, one line of figures whenever they changed, the table at the beginning and the end."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._last = ""
        self._has_shown_table = False

    def tell(self, line: str) -> None:
        """Prints it with the time since the start."""
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", flush=True)

    def start(self, facts: dict[str, Any]) -> None:
        """Nothing: all of it was told already."""

    def show(self, plan: Plan, view: SwarmView, phase: str) -> None:
        """The footer, if it says something new."""
        if not self._has_shown_table:
            self._has_shown_table = True
            print(*format_rows(plan, view), sep="\n")
        footer = format_footer(plan, view)
        if footer != self._last:
            self._last = footer
            self.tell(footer)

    def end(self, plan: Plan, view: SwarmView | None, lines: Sequence[str], facts: dict[str, Any]) -> None:
        """The table once more, and the summary."""
        print(*(format_rows(plan, view) if view else ()), *lines, sep="\n", flush=True)


class JsonOutput(_Lines):
    """One JSON object a line on standard output, told by `kind`; what happens in words goes to standard error."""

    def tell(self, line: str) -> None:
        """Prints it to standard error."""
        print(line, file=sys.stderr, flush=True)

    def start(self, facts: dict[str, Any]) -> None:
        """Kind `start`."""
        _print_object({"kind": "start", **facts})

    def show(self, plan: Plan, view: SwarmView, phase: str) -> None:
        """Kind `view`."""
        devices = [
            {
                "name": device.name,
                "state": device.state,
                "process": device.pid,
                "links": list(device.links),
                "groups": plan.groups_of(device.name),
                "rows": dict(device.rows),
                "lag_entries": device.lag_entries,
                "memory_bytes": device.memory_bytes,
                "file_handles": device.file_handles,
                "bytes_in": device.bytes_in,
                "bytes_out": device.bytes_out,
            }
            for device in view.devices
        ]
        facts = {
            "phase": phase,
            "devices": devices,
            "links": sorted(view.links),
            "doubled": sorted(view.doubled),
            "written": dict(view.written),
            "converged": view.converged_s is not None,
            "converged_s": view.converged_s,
            "waiting_for": list(view.waiting_for),
        }
        _print_object({"kind": "view", **facts})

    def end(self, plan: Plan, view: SwarmView | None, lines: Sequence[str], facts: dict[str, Any]) -> None:
        """Kind `summary`."""
        _print_object({"kind": "summary", **facts})


def _print_object(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)


class ScreenOutput:
    """A terminal: the table is drawn over itself, the last events below it, and below them what is being typed.

    The terminal's own echo is off, since a redraw would tear the line that is being typed.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._body: list[str] = []
        self._typed = ""
        self._is_over = False

    def tell(self, line: str) -> None:
        """Adds an event."""
        self._events.append(f"{time.monotonic() - self._began:6.1f} s  {line}")
        self._draw()

    def start(self, facts: dict[str, Any]) -> None:
        """Nothing: the first view follows."""

    def show(self, plan: Plan, view: SwarmView, phase: str) -> None:
        """Draws the table anew."""
        footer = format_footer(plan, view).replace(" · ", "\n").split("\n")
        self._body = [
            *format_rows(plan, view),
            "",
            *footer,
            *(["ending: waits until all have everything"] * (phase == "settling")),
        ]
        self._draw()

    def typed(self, text: str) -> Sequence[str]:
        """Edits the line below the table: characters, backspace, Ctrl-U, Enter."""
        lines: list[str] = []
        for character in ESCAPE_SEQUENCE.sub("", text):
            if character in "\r\n":
                lines.append(self._typed)
                self._typed = ""
            elif character == CANCEL_LINE:
                self._typed = ""
            elif character in BACKSPACES:
                self._typed = self._typed[:-1]
            elif character.isprintable() and len(self._typed) < TYPED_CHARACTERS_MAX:
                self._typed += character
        self._draw()
        return lines

    def end(self, plan: Plan, view: SwarmView | None, lines: Sequence[str], facts: dict[str, Any]) -> None:
        """Leaves the last table and the summary on the usual screen."""
        self.leave()
        print(*(format_rows(plan, view) if view else ()), *lines, sep="\n", flush=True)

    def leave(self) -> None:
        """Back to the screen that was there before."""
        if not self._is_over:
            self._is_over = True
            sys.stdout.write(USUAL_SCREEN)
            sys.stdout.flush()

    def _draw(self) -> None:
        if self._is_over:
            return
        width, height = shutil.get_terminal_size()
        below = ["", *self._events, f"> {self._typed}"]
        room = max(height - len(below), 1)
        body = self._body if len(self._body) <= room else [*self._body[: room - 1], "(more lines than the terminal has)"]
        lines = [line[: width - 1] for line in [*body, *below][-height:]]
        sys.stdout.write(HOME + f"{CLEAR_LINE}\n".join(lines) + CLEAR_LINE + CLEAR_BELOW)
        sys.stdout.flush()


@contextmanager
def open_output(*, as_json: bool) -> Generator[Output]:
    """The output that fits; a terminal is afterwards as it was before."""
    if as_json:
        yield JsonOutput()
        return
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield PlainOutput()
        return
    saved = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None
    output = ScreenOutput()
    try:
        if saved is not None:
            tty.setcbreak(sys.stdin, termios.TCSANOW)
        sys.stdout.write(ALTERNATE_SCREEN)
        yield output
    finally:
        output.leave()
        if saved is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)
