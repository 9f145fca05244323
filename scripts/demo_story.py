"""How the demo is told: a line for each thing that happens, with the time, and what differed from what it should be."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import trio

from peersd.testing.processes import DaemonProcess

WAIT_S = 60.0
"""A hang guard for every wait; the whole takes less than half of it."""
SHOW_EVERY_S = 0.3
LOOK_EVERY_S = 0.02
WORD_CHARACTERS_MAX = 60
"""Longer words of a command, tickets above all, are shown by their beginning."""


class Story:
    """Prints what happens, with the time since the start, and keeps what differed from what it should be."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.failures: list[str] = []

    def say(self, line: str) -> None:
        """One line of the story."""
        print(f"{time.monotonic() - self._began:5.1f} s  {line}", flush=True)

    def chapter(self, title: str) -> None:
        """The next part of the story."""
        print()
        self.say(title)

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
                if time.monotonic() - shown > SHOW_EVERY_S:
                    shown = time.monotonic()
                    self.say(f"  {what}: {now:,} …")
                await trio.sleep(LOOK_EVERY_S)
            self.say(f"  {what}: {now:,}")
            return now
        raise RuntimeError(f"{what}: {current():,} of {wanted:,} after {WAIT_S:.0f} s")

    async def wait_for(self, what: str, current: Callable[[], Awaitable[object]], wanted: object) -> None:
        """Waits until something is as wanted.

        Raises:
            RuntimeError: it is not within the hang guard.
        """
        found: object = None
        with trio.move_on_after(WAIT_S):
            while (found := await current()) != wanted:
                await trio.sleep(LOOK_EVERY_S)
            self.say(f"  ok     {what}: {found}")
            return
        raise RuntimeError(f"{what}: {found}, should be {wanted}, after {WAIT_S:.0f} s")

    async def run_peers(self, daemon: DaemonProcess, *arguments: str) -> None:
        """Runs `peers` as a user would and shows the command.

        Raises:
            RuntimeError: it ended with another status than 0.
        """
        words = [_shorten(word) for word in arguments]
        self.say(f"{daemon.folder.name}$ peers {' '.join(words)}")
        finished = await daemon.peers(*arguments)
        if finished.status != 0:
            raise RuntimeError(f"peers {arguments[0]} ended with {finished.status}: {finished.err.strip()}")


def _shorten(word: str) -> str:
    if " " in word:
        return f'"{word}"'
    return word if len(word) < WORD_CHARACTERS_MAX else word[:24] + "…"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A small table with aligned columns."""
    lines = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
