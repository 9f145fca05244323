"""Virtual time: a heap of events, one source of randomness, and the trace of what happened."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random
from traceback import format_exception

FIRST_WALL_MS = 1_700_000_000_000
"""The wall clock at virtual time 0."""

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
    """Something that must hold did not. The text names the seed, the command that replays it, and how the trace ended.

    Args:
        text: what to tell.
        trace: all that happened.
    """

    def __init__(self, text: str, trace: Trace) -> None:
        super().__init__(text)
        self.trace = trace


class Schedule:
    """The heap of events. Events at the same ms run in the order they were asked for.

    Args:
        seed: of all that is random in this simulation.
        replay: the command that runs it again.

    Attributes:
        now_ms: virtual milliseconds since the start.
        random: the one source of randomness.
        trace: what happened so far.
    """

    def __init__(self, seed: int, replay: str) -> None:
        self.seed = seed
        self.replay = replay
        self.now_ms = 0
        self.random = Random(seed)
        self.trace = Trace()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, at_ms: int, event: Callable[[], None]) -> None:
        """Runs `event` at a virtual time, not before now."""
        self._count += 1
        heapq.heappush(self._heap, (max(at_ms, self.now_ms), self._count, event))

    def after(self, least_ms: int, most_ms: int, event: Callable[[], None]) -> None:
        """Runs `event` after a random wait."""
        self.at(self.now_ms + self.random.randint(least_ms, most_ms), event)

    def run_until(self, end_ms: int) -> None:
        """Runs all events up to a virtual time, included."""
        while self._heap and self._heap[0][0] <= end_ms:
            self.now_ms, _, event = heapq.heappop(self._heap)
            event()
        self.now_ms = max(self.now_ms, end_ms)

    def note(self, device: str, text: str) -> None:
        """Adds a line to the trace."""
        self.trace.add(f"{self.now_ms:7d} {device:2s} {text}")

    def fail(self, text: str, cause: BaseException | None = None) -> SimulationFailed:
        """The failure to raise, with what one needs to look into it."""
        tail = "\n".join(self.trace.lines[-TRACE_TAIL_LINES:])
        detail = "\n" + "".join(format_exception(cause)).rstrip() if cause else ""
        return SimulationFailed(
            f"seed {self.seed} at {self.now_ms} ms: {text}{detail}\n{tail}\nreplay: {self.replay}", self.trace
        )
