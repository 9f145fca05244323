"""What a small message may become in memory: as many arrays as MESSAGE_ARRAYS_MAX, and runs that can be passed on as they are.

Nothing is made of what an array says that it holds, and does not.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from peersd_protocol import blocks, canonical, changesets
from peersd_protocol.beacon_messages import decode_beacon_message
from peersd_protocol.canonical import Value
from peersd_protocol.changesets import Changeset, TableChangeset
from peersd_protocol.constants import MESSAGE_ARRAYS_MAX, MESSAGE_BYTES_MAX, MIB, RUN_BYTES_MAX, RUN_ENTRIES_MAX
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import MessageType, Runs, decode_message, decode_runs

GROUP = b"g" * 32
EMPTIES = MESSAGE_BYTES_MAX - 40

LEAST_ENTRY: Value = [1, [], [], [0], []]
ARRAYS_OF_A_RUN = 2 + 5 * RUN_ENTRIES_MAX


def run_of(entries: list[Value]) -> list[Value]:
    return [3, b"u" * 32, b"d" * 32, b"e" * 16, 1, b"", b"s" * 64, entries]


def least_runs(count: int) -> Runs:
    """Runs of the smallest entries that there are, as one zstd frame."""
    return Runs(1, blocks.compress(canonical.encode([run_of([LEAST_ENTRY] * RUN_ENTRIES_MAX)] * count)))


def code_and_peak(decode: Callable[[], object]) -> tuple[CloseCode | None, int]:
    tracemalloc.start()
    try:
        decode()
        code = None
    except RemoteProtocolError as error:
        code = error.close_code
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return code, peak


def test_a_megabyte_of_empty_arrays_is_refused_before_it_takes_seventy() -> None:
    message = b"\xdd" + EMPTIES.to_bytes(4, "big") + b"\x90" * EMPTIES
    code, peak = code_and_peak(lambda: decode_message(message))
    assert code is CloseCode.TOO_LARGE
    assert peak < 16 * MIB


@pytest.mark.parametrize("kind", [MessageType.VECTOR, MessageType.HAVE, MessageType.ASK, MessageType.WANT])
def test_empty_arrays_within_a_message_are_counted(kind: MessageType) -> None:
    code, peak = code_and_peak(lambda: decode_message(canonical.encode([int(kind), False, [[]] * (EMPTIES - 40)])))
    assert code is CloseCode.TOO_LARGE
    assert peak < 20 * MIB  # with the message itself and the list that it was made of


@pytest.mark.parametrize("kind", [MessageType.COUNTERS, MessageType.BEACONS])
def test_empty_arrays_within_a_message_about_beacons_are_counted(kind: MessageType) -> None:
    code, _ = code_and_peak(lambda: decode_beacon_message(canonical.encode([int(kind), [[]] * (EMPTIES - 40)])))
    assert code is CloseCode.TOO_LARGE


def test_two_hundred_bytes_that_unpack_to_a_hundred_thousand_entries_are_refused() -> None:
    runs = least_runs(500)
    assert len(runs.payload) < 2_000
    code, peak = code_and_peak(lambda: decode_runs(runs, GROUP))
    assert code is CloseCode.TOO_LARGE
    assert peak < 16 * MIB


def test_as_many_arrays_as_there_may_be_are_taken_and_stay_within_what_a_link_may_take() -> None:
    runs = least_runs((MESSAGE_ARRAYS_MAX - 1) // ARRAYS_OF_A_RUN)
    code, peak = code_and_peak(lambda: decode_runs(runs, GROUP))
    assert code is None
    assert peak < 20 * MIB
    one_more = least_runs(MESSAGE_ARRAYS_MAX // ARRAYS_OF_A_RUN + 1)
    assert code_and_peak(lambda: decode_runs(one_more, GROUP))[0] is CloseCode.TOO_LARGE


def test_a_run_of_more_bytes_than_can_be_passed_on_behind_others_is_refused() -> None:
    def decoded(body_bytes: int) -> int:
        return len(decode_runs(Runs(0, canonical.encode([run_of([[1, [], [], [0, bytes(body_bytes)], []]] * 5)])), GROUP))

    assert decoded(RUN_BYTES_MAX // 5 - 100) == 1
    with pytest.raises(RemoteProtocolError) as refused:
        decoded(RUN_BYTES_MAX // 5 + 100)
    assert refused.value.close_code is CloseCode.TOO_LARGE


SAID_BYTES = 60_000


def within_each_other() -> bytes:
    """As many arrays within each other as msgpack takes, each of which says that it has as many elements as there are bytes."""
    return (b"\xdd" + SAID_BYTES.to_bytes(4, "big")) * 1_000 + bytes(SAID_BYTES - 5_000)


def as_one_of_two_inserts(inserts: bytes) -> object:
    good = changesets.encode(Changeset((TableChangeset((b"a" * 16, 0), (), [[1], ["x"]]),)))
    start = changesets.encode(Changeset((TableChangeset((b"a" * 16, 0), ()),)))[:-3]
    return changesets.decode_inserts([good, start + inserts + good[-2:]])


@pytest.mark.parametrize(
    ("decode", "code"),
    [
        (lambda data: canonical.decode(data, bytes_max=SAID_BYTES), CloseCode.MALFORMED),
        (decode_message, CloseCode.MALFORMED),
        (changesets.decode, CloseCode.MALFORMED),
        (as_one_of_two_inserts, None),
    ],
    ids=["canonical", "message", "changeset", "inserts"],
)
def test_what_arrays_say_that_they_hold_takes_no_memory(decode: Callable[[bytes], object], code: CloseCode | None) -> None:
    """They took 77 MiB, and as much for a sixth of the bytes."""
    data = within_each_other()
    found, peak = code_and_peak(lambda: decode(data))
    assert found is code
    assert peak < MIB
