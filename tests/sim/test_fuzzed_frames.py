"""Twenty thousand frames by a grammar, good ones and such as break a rule: only what brought them ends, memory stays small."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from peersd.testing.fuzzing import EPISODE_FRAMES, KINDS, Campaign, Tally, episodes_for, make_world, run_campaign
from peersd.testing.fuzzing.mutation import mutate_value, pack
from peersd.testing.fuzzing.tally import GROWTH_BYTES_MAX
from peersd.testing.simulator.simulation import memory_folder
from peersd_protocol.canonical import Value
from peersd_protocol.constants import MIB

FRAMES = 20_000
CAMPAIGNS = 4
"""The frames are split so that they can run side by side."""

NEVER_GOOD = {"unknown frame", "ciphertext", "unknown message"}
ENDS_A_LINK = {"GOAWAY"}
"""Kept to the rules it ends the link, which is no refusal."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where there is any: two thirds of the time would else be spent waiting for a disk."""
    with TemporaryDirectory(prefix="peersd-frames-", dir=memory_folder()) as name:
        yield Path(name)


def send(folder: Path, campaign: Campaign, frames: int, first: int = 0) -> Tally:
    tally = Tally()
    run_campaign(make_world(folder), folder, campaign, episodes_for(frames, first), tally)
    return tally


@pytest.mark.sim
@pytest.mark.parametrize("part", range(CAMPAIGNS))
def test_frames_of_a_hostile_member_end_their_link_or_channel_and_nothing_else(folder: Path, part: int) -> None:
    frames = FRAMES // CAMPAIGNS
    tally = send(folder, Campaign(measured_every=25), frames, first=part * frames // EPISODE_FRAMES)
    assert tally.sent == frames
    assert set(tally.rows) == set(KINDS)
    for kind, row in tally.rows.items():  # else what is made would be refused at its first byte, or always be good
        assert row.good >= 20 or kind in NEVER_GOOD | ENDS_A_LINK, f"{kind}: {row}"
        assert row.taken >= row.good, f"{kind}: {row}"
        assert sum(row.refused.values()) >= 20, f"{kind}: {row}"
    assert 0 < tally.growth_bytes.value < GROWTH_BYTES_MAX == 32 * MIB


def test_a_good_message_is_not_blamed_for_what_an_earlier_one_brought_and_it_lets_go_on(folder: Path) -> None:
    tally = send(folder, Campaign(seed=20261123), EPISODE_FRAMES, first=733)
    assert tally.rows["RUNS relayed"].refused["channel BAD_CHAIN"] == 1


def test_the_same_seed_sends_the_same(folder: Path) -> None:
    tallies: list[Tally] = []
    for name in ("one", "two"):
        own = folder / name
        own.mkdir()
        tallies.append(send(own, Campaign(seed=5, measured_every=0), 2 * EPISODE_FRAMES))
    one, two = ({kind: (row.sent, row.good, row.refused, row.changes) for kind, row in tally.rows.items()} for tally in tallies)
    assert one == two


def test_what_the_hostile_side_makes_of_a_value_takes_less_memory_than_the_device_may() -> None:
    deep: list[Value] = [0]
    for _ in range(2_000):
        deep = [deep]
    tracemalloc.start()
    try:
        for seed in range(60):
            pack(mutate_value(Random(seed), [bytes(200_000)]))
            long: Value = ["x" * 3_000]
            for _ in range(4):
                long = mutate_value(Random(seed), long)
            pack(long)
        pack([deep] * 400)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < GROWTH_BYTES_MAX // 2
