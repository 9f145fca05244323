"""What a member can have a device keep stays within what one link may take, whatever it says (DESIGN 12)."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from peersd.testing.fuzzing.greed import GREEDY, parked_bodies, vector_of_logs
from peersd.testing.fuzzing.hostile import Hostile
from peersd.testing.fuzzing.tally import GROWTH_BYTES_MAX
from peersd.testing.fuzzing.victim import Victim
from peersd.testing.fuzzing.world import Clock, World, make_world
from peersd_protocol.constants import MIB
from peersd_protocol.handshake import Role

Greed = Callable[[Random, World], list[bytes]]


def growth(tmp_path: Path, attacks: Sequence[Greed]) -> tuple[int, int]:
    """Sends all messages over one link; how far memory grew, at its peak and when the link was gone."""
    world, random = make_world(tmp_path), Random(7)
    messages = [message for attack in attacks for message in attack(random, world)]
    store = world.open_victim(tmp_path / "victim.db", Clock())
    try:
        victim = Victim(world, store, Clock(), bytes(16))
        hostile = Hostile(world, victim, Role.DIALLER, random)
        hostile.open_channel()
        gc.collect()
        tracemalloc.start()
        try:
            for message in messages:
                hostile.send(message)
                if victim.refusals:
                    break
            victim.advance(6_000)
            hostile.pump()
            _, peak = tracemalloc.get_traced_memory()
            hostile.forget()
            gc.collect()
            left, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    finally:
        store.close()
    return peak, left


@pytest.mark.sim
@pytest.mark.parametrize("attack", GREEDY, ids=[attack.__name__ for attack in GREEDY])
def test_what_takes_the_most_memory_for_its_size_stays_within_what_a_link_may_take(tmp_path: Path, attack: Greed) -> None:
    """A vector took 73 MiB, a message of empty arrays 74, 200 bytes that unpack to small entries 144."""
    peak, left = growth(tmp_path, [attack])
    assert peak < 24 * MIB
    assert left < 1 * MIB


@pytest.mark.sim
def test_what_may_be_kept_at_once_for_one_session_stays_within_what_a_link_may_take(tmp_path: Path) -> None:
    peak, left = growth(tmp_path, [parked_bodies, vector_of_logs])
    assert 16 * MIB < peak < GROWTH_BYTES_MAX
    assert left < 1 * MIB
