"""Virtual time: a heap of events, one source of randomness, and the trace of what happened."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random
from traceback import format_exception

from peersd.testing.checkers import EXCEPTION, Checker

TRACE_TAIL_LINES = 60
"""How much of the trace a failure shows; all of it is had by replaying."""


class Trace:
    """What happened, one line an event: virtual ms, device, text. Lines hold nothing that differs between two runs of a seed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._sha256 = hashlib.sha256()

    def add(self, line: str) -> None:
        """Adds a line."""
        self.lines.append(line)
        self._sha256.update(line.encode() + b"\n")

    @property
    def hash(self) -> str:
        """SHA-256 over all lines so far, 64 hexadecimal digits."""
        return self._sha256.hexdigest()


class SimulationFailed(Exception):
    """Something that must hold did not. The text names the seed, how the trace ended, and the command that replays it.

    Args:
        name: of the checker that found it, or EXCEPTION if the product raised.
        what: the seed, the time and what is wrong, in a line; after it, where something was raised, how.
        trace: all that happened.
        replay: the command that runs it again.
    """

    def __init__(self, name: str, what: str, trace: Trace, replay: str) -> None:
        super().__init__("\n".join([what, *trace.lines[-TRACE_TAIL_LINES:], f"replay: {replay}"]))
        self.name = name
        self.what = what
        self.trace = trace
        self.replay = replay


class Schedule:
    """The heap of events. Events at the same ms run in the order they were asked for.

    Args:
        seed: of all that is random in this simulation.
        replay: the command that runs it again.

    Attributes:
        now_ms: virtual milliseconds since the start.
        names: what a failure calls whatever it would name by 8 hexadecimal digits.
        trace: what happened so far.
    """

    def __init__(self, seed: int, replay: str) -> None:
        self.seed = seed
        self.replay = replay
        self.now_ms = 0
        self.names: dict[str, str] = {}
        self.trace = Trace()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._numbers: dict[tuple[object, ...], int] = {}

    def at(self, at_ms: int, event: Callable[[], None]) -> None:
        """Runs `event` at a virtual time, not before now."""
        self._count += 1
        heapq.heappush(self._heap, (max(at_ms, self.now_ms), self._count, event))

    def stream(self, *names: object) -> Random:
        """A source of randomness of its own for what has these names: what it gives does not depend on who else draws."""
        return Random("/".join(map(str, (self.seed, *names))))

    def next_number(self, *names: object) -> int:
        """1 for the first thing of these names, 2 for the second, and so on."""
        self._numbers[names] = number = self._numbers.get(names, 0) + 1
        return number

    def run_until(self, end_ms: int) -> None:
        """Runs all events up to a virtual time, included."""
        while self._heap and self._heap[0][0] <= end_ms:
            self.now_ms, _, event = heapq.heappop(self._heap)
            event()
        self.now_ms = max(self.now_ms, end_ms)

    def note(self, device: str, text: str) -> None:
        """Adds a line to the trace."""
        self.trace.add(f"{self.now_ms:7d} {device:1s} {text}")

    def fail(self, checker: Checker | None, text: str, cause: BaseException | None = None) -> SimulationFailed:
        """The failure to raise, with what one needs to look into it.

        Args:
            checker: which check found it; None if the product raised.
            text: what is wrong.
            cause: what was raised, if anything was.
        """
        name = checker.value if checker is not None else EXCEPTION
        for digits, called in self.names.items():
            text = text.replace(digits, called)
        detail = "\n" + "".join(format_exception(cause)).rstrip() if cause else ""
        head = f"seed {self.seed} at {self.now_ms} ms: {name}: {text}"
        return SimulationFailed(name, head + detail, self.trace, self.replay)
