"""Hybrid logical clock stamps (SPEC: T) and the text forms of ids (SPEC: I)."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol import hlc, ids

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
STAMPS: dict[str, Any] = json.loads((VECTORS / "hlc.json").read_text())
IDS: dict[str, Any] = json.loads((VECTORS / "ids.json").read_text())

stamps = st.builds(hlc.pack, st.integers(0, 2**46), st.integers(0, hlc.COUNTER_MAX))


@pytest.mark.parametrize("case", STAMPS["valid"], ids=lambda case: case["why"])
def test_valid_stamps_follow(case: dict[str, Any]) -> None:
    assert hlc.is_valid_successor(hlc.pack(*case["stamp"]), hlc.pack(*case["before"]))


@pytest.mark.parametrize("case", STAMPS["invalid"], ids=lambda case: case["why"])
def test_invalid_stamps_do_not_follow(case: dict[str, Any]) -> None:
    assert case["error"] == "BAD_CHAIN"
    assert not hlc.is_valid_successor(hlc.pack(*case["stamp"]), hlc.pack(*case["before"]))


@given(stamps, st.integers(0, 2**48))
def test_every_stamp_has_a_successor_that_is_valid_and_greater(before: int, wall_ms: int) -> None:
    stamp = hlc.next_stamp(before, wall_ms)
    assert stamp > before
    assert hlc.is_valid_successor(stamp, before)


@given(stamps, st.lists(st.tuples(st.booleans(), st.integers(0, 2**48)), min_size=1, max_size=6), st.integers(-3, 5))
def test_stamps_follow_one_another_if_each_follows_the_one_before(before: int, steps: list[tuple[bool, int]], wrong: int) -> None:
    chain = [before]
    for counts_up, wall_ms in steps:
        chain.append(hlc.next_stamp(chain[-1], 0 if counts_up else wall_ms))
    assert hlc.are_valid_successors(chain[1:], before)
    if 0 < wrong < len(chain):
        chain[wrong] += 1
        each = [hlc.is_valid_successor(stamp, earlier) for earlier, stamp in pairwise(chain)]
        assert hlc.are_valid_successors(chain[1:], before) == all(each)


@given(stamps)
def test_packing_loses_nothing(stamp: int) -> None:
    assert hlc.pack(*hlc.unpack(stamp)) == stamp


@pytest.mark.parametrize(
    ("before", "wall_ms", "stamp"),
    [
        ((0, 0), 1_700_000_000_000, (1_700_000_000_000, 0)),
        ((5, 3), 6, (6, 0)),
        ((5, 3), 5, (5, 4)),
        ((5, 3), 4, (5, 4)),
        ((5, 65_535), 5, (6, 0)),
        ((5, 65_535), 9, (9, 0)),
        ((2**42 - 1, 7), 2**42, (2**42 - 1, 8)),
        ((2**42, 65_535), 2**43, (2**42 + 1, 0)),
    ],
)
def test_an_honest_device_stamps_with_its_clock_or_counts(before: tuple[int, int], wall_ms: int, stamp: tuple[int, int]) -> None:
    assert hlc.unpack(hlc.next_stamp(hlc.pack(*before), wall_ms)) == stamp


@pytest.mark.parametrize("case", IDS["valid"], ids=lambda case: case["prefix"])
def test_ids_have_one_text_form(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["bytes"])
    assert ids.format_id(case["prefix"], raw) == case["text"]
    assert ids.parse_id(case["prefix"], case["text"]) == raw


@pytest.mark.parametrize("case", IDS["invalid"], ids=lambda case: case["why"])
def test_other_texts_are_no_ids(case: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=case["detail"]):
        ids.parse_id(case["prefix"], case["text"])


@given(st.binary(min_size=1, max_size=64), st.integers(0, 1000), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_wrong_character_is_noticed(raw: bytes, at: int, character: str) -> None:
    text = ids.format_id(ids.GROUP, raw)
    position = len("grp-") + at % (len(text) - 4)
    changed = text[:position] + character + text[position + 1 :]
    if changed != text:
        with pytest.raises(ValueError):
            ids.parse_id(ids.GROUP, changed)
