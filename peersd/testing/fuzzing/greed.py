"""What a hostile member can have a device keep: messages that take the most memory for their size.

The grammar would not come upon them, since each field has to be as dear as can be; so they are made on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from peersd.testing.fuzzing.mutation import pack
from peersd.testing.fuzzing.world import World
from peersd_protocol import blocks as block_codec
from peersd_protocol.canonical import Value
from peersd_protocol.constants import MESSAGE_BYTES_MAX, RUN_ENTRIES_MAX, VECTOR_LOGS_MAX, VECTOR_TIPS_MAX
from peersd_protocol.messages import MessageType

_PART_LOGS: Final = 2_048


def _logs(random: Random, count: int, tips: int) -> list[Value]:
    """Logs that nobody else has, ascending."""
    named = sorted((random.randbytes(32), random.randbytes(16)) for _ in range(count))
    return [[3, b"", device, epoch, [[seq, random.randbytes(32)] for seq in range(1, tips + 1)]] for device, epoch in named]


def _vector(random: Random, count: int, tips: int) -> list[bytes]:
    logs = _logs(random, count, tips)
    starts = range(0, count, _PART_LOGS)
    return [pack([MessageType.VECTOR, start != starts[-1], logs[start : start + _PART_LOGS]]) for start in starts]


def vector_of_logs(random: Random, world: World) -> list[bytes]:
    """As many logs as a vector may name."""
    return _vector(random, VECTOR_LOGS_MAX, 1)


def vector_of_tips(random: Random, world: World) -> list[bytes]:
    """As many tips as a vector may name, eight a log."""
    return _vector(random, VECTOR_TIPS_MAX // 8, 8)


def announced_logs(random: Random, world: World) -> list[bytes]:
    """The same by HAVE."""
    logs = _logs(random, VECTOR_LOGS_MAX, 1)
    # What is held besides counts too: the last part is one too many.
    return [pack([MessageType.HAVE, logs[start : start + _PART_LOGS]]) for start in range(0, VECTOR_LOGS_MAX, _PART_LOGS)]


def _run(random: Random, world: World, entries: Value) -> list[Value]:
    """A run that cannot be taken in, nor be refused, before its `prev` is here."""
    author = world.hostile
    return [3, author.user, author.keys.device, random.randbytes(16), 2, random.randbytes(32), bytes(64), entries]


def parked_bodies(random: Random, world: World) -> list[bytes]:
    """More bytes of early runs than may be parked."""
    runs = [_run(random, world, [[1, [], [], [0, b"\0" + random.randbytes(100_000)], []]]) for _ in range(100)]
    return [pack([MessageType.RUNS, 0, pack([run])]) for run in runs]


def parked_hashes(random: Random, world: World) -> list[bytes]:
    """Early runs that wait for as many entries as they can name."""
    runs: list[Value] = []
    for _ in range(100):
        heads: Value = sorted(random.randbytes(32) for _ in range(256))
        runs.append(_run(random, world, [[1, [], heads, [0], []]]))
    return [pack([MessageType.RUNS, 0, pack([run])]) for run in runs * 3]


def least_entries(random: Random, world: World) -> list[bytes]:
    """Two kilobytes that unpack to a megabyte of the smallest entries."""
    one = _run(random, world, [[1, [], [], [0], []]] * RUN_ENTRIES_MAX)
    count = MESSAGE_BYTES_MAX // len(pack(one)) - 1
    return [pack([MessageType.RUNS, 1, block_codec.compress(pack([one] * count))])]


def empty_arrays(random: Random, world: World) -> list[bytes]:
    """A megabyte of empty arrays."""
    return [b"\xdd" + (MESSAGE_BYTES_MAX - 5).to_bytes(4, "big") + b"\x90" * (MESSAGE_BYTES_MAX - 5)]


def arrays_that_say_much(random: Random, world: World) -> list[bytes]:
    """Arrays within each other that say they have as many elements as msgpack makes room for; only the innermost has them."""
    return [(b"\xdd" + (10_000).to_bytes(4, "big")) * 1_000 + bytes(10_000)]


def nested_fields(random: Random, world: World) -> list[bytes]:
    """A field of a later version that is all arrays."""
    many: Value = [[]] * 60_000
    return [pack([MessageType.RUNS, 0, pack([_run(random, world, [[1, [], [], [0], [[1, many]]]])])]) for _ in range(8)]


def branches_wanted(random: Random, world: World) -> list[bytes]:
    """As many items of a WANT as there may be, again and again."""
    items: list[Value] = [[3, b"", random.randbytes(32), random.randbytes(16), 1, random.randbytes(32), []] for _ in range(4_096)]
    return [pack([MessageType.WANT, items, []])] * 5


GREEDY: Final[tuple[Callable[[Random, World], list[bytes]], ...]] = (
    *(vector_of_logs, vector_of_tips, announced_logs, parked_bodies, parked_hashes),
    *(least_entries, empty_arrays, arrays_that_say_much, nested_fields, branches_wanted),
)
"""Each by itself."""
