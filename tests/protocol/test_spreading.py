"""How entries spread over the links that hundreds of devices choose: a small run, and that what is looked at there can fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import pytest

from peersd.testing.machines.crowds import GROUPS_PER_USER_MAX, draw_crowd
from peersd.testing.machines.mesh_network import device_id
from peersd.testing.machines.replication_network import STORE_MS
from peersd.testing.machines.spreading import (
    Links,
    Spread,
    breaches_of_first,
    breaches_of_later,
    copies_of_first_max,
    fastest_ms,
    hops_at_least,
    link_count,
    spread_entries,
)
from peersd_protocol.constants import GAP_DELAY_MS, HAVE_DELAY_MS
from scripts import sim_hops

SMALL = ("--devices", "60", "--groups", "8")


def make_links(pairs: Sequence[tuple[int, int]], latency_ms: Callable[[int, int], int] = lambda one, other: 10) -> Links:
    links: dict[bytes, dict[bytes, int]] = {}
    for one, other in pairs:
        for near, far in ((one, other), (other, one)):
            links.setdefault(device_id(near), {})[device_id(far)] = latency_ms(one, other)
    return links


def ring(size: int, latency_ms: int) -> Links:
    return make_links([*pairwise(range(size)), (0, size - 1)], lambda one, other: latency_ms)


def spread(links: Links, *writers: int) -> list[Spread]:
    return spread_entries(1, links, [device_id(writer) for writer in writers])


# --- A small run ----------------------------------------------------------------------------------------------------------------


def test_sixty_devices_in_eight_groups_reach_all_within_what_the_topology_allows(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim_hops.main([*SMALL, "--links", "16"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    rows = [line.split("|") for line in told.out.splitlines() if line.count("|") == 2][2:]
    assert len(rows) == 8
    assert sum(int(row[0].split()[0]) for row in rows) > 60  # the members of all groups
    assert all(row[2].split()[-2] == "1.00" for row in rows)  # on a tree nothing is sent twice


@pytest.mark.parametrize("seed", ["1", "3", "4"])
def test_with_so_few_links_that_only_the_rings_hold_groups_together_all_are_reached(seed: str) -> None:
    assert sim_hops.main(["--devices", "60", "--groups", "4", "--links", "5", "--seed", seed]) == 0


def test_the_same_seed_gives_the_same_table(capsys: pytest.CaptureFixture[str]) -> None:
    tables: list[list[str]] = []
    for seed in ("7", "7", "8"):
        assert sim_hops.main([*SMALL, "--seed", seed]) == 0
        tables.append(capsys.readouterr().out.splitlines()[:-1])  # but for the last line, which tells the processor's time
    assert tables[0] == tables[1] != tables[2]


def test_groups_that_the_links_do_not_join_fail_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim_hops.main([*SMALL, "--links", "1"]) == 1
    told = capsys.readouterr()
    assert "FAILED: in pieces: " in told.err
    assert told.out.count("in pieces") >= 8


def test_a_crowd_is_as_large_as_wanted_and_everybody_is_in_a_group() -> None:
    crowd = draw_crowd(1, 500, 40)
    assert len(crowd.devices) == 500
    owned = {user: devices for members in crowd.groups.values() for user, devices in members.items()}
    assert Counter(map(len, owned.values())) == {1: 320, 2: 60, 3: 20}
    assert len(crowd.personal) == 80
    sizes = sorted(map(len, crowd.groups.values()), reverse=True)
    assert len(sizes) == 40
    assert sizes[:4] == [200, 50, 50, 50]
    assert all(3 <= size <= 15 for size in sizes[4:])
    groups_of = Counter(user for members in crowd.groups.values() for user in members)
    assert len(groups_of) == 400
    assert max(groups_of.values()) <= GROUPS_PER_USER_MAX


# --- Shapes of which the numbers are known --------------------------------------------------------------------------------------


def test_on_a_line_hops_time_and_bytes_are_those_of_the_line() -> None:
    links = make_links(list(pairwise(range(6))))
    first, later = spread(links, 0, 2)
    assert sorted(first.hops.values()) == [1, 2, 3, 4, 5]
    assert first.took_ms_max == 5 * (10 + STORE_MS) == fastest_ms(links, device_id(0))[device_id(5)]
    assert (first.copies, copies_of_first_max(links)) == (1, 1)
    assert sorted(later.hops.values()) == [1, 1, 2, 2, 3]
    assert (hops_at_least(links, device_id(0)), hops_at_least(links, device_id(2))) == (5, 3)
    assert breaches_of_first(links, first) == breaches_of_later(links, first, [later]) == []


def test_where_all_are_linked_the_first_entry_crosses_all_links_twice_but_for_the_tree_and_the_next_one_the_tree() -> None:
    links = make_links(list(combinations(range(8), 2)))
    first, later = spread(links, 0, 3)
    assert link_count(links) == 28
    assert first.copies == copies_of_first_max(links) == (2 * 28 - 7) / 7
    assert set(first.hops.values()) == {1}
    assert (later.copies, later.hops_max, later.took_ms_max) == (1, 2, 2 * (10 + STORE_MS))
    assert breaches_of_first(links, first) == breaches_of_later(links, first, [later]) == []


def test_a_tree_that_is_slower_than_have_and_want_is_overtaken_and_that_is_within_bounds() -> None:
    links = ring(15, 45)
    first, later, after = spread(links, 0, 7, 3)
    beyond = device_id(8)  # on the tree 14 links away from device 7, to which it is linked
    assert later.hops[beyond] == 1
    assert HAVE_DELAY_MS + GAP_DELAY_MS < later.took_ms[beyond] < 14 * (45 + STORE_MS)
    assert breaches_of_first(links, first) == breaches_of_later(links, first, [later, after]) == []


# --- What is looked at can fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda it, far: replace(it, hops={far: it.hops[far]}, took_ms={far: it.took_ms[far]}), "4 of 6 devices not reached"),
        (lambda it, far: replace(it, took_ms={**it.took_ms, far: it.took_ms[far] + 1}), "1 devices reached later"),
        (lambda it, far: replace(it, entry_bytes=it.entry_bytes * 3), "3.00 copies"),
        (lambda it, far: replace(it, unsure_count=2), "2 ends do not know"),
    ],
)
def test_what_goes_beyond_is_told_of_the_first_entry_and_of_later_ones(
    changed: Callable[[Spread, bytes], Spread], said: str
) -> None:
    links = make_links(list(pairwise(range(6))))
    first, later = spread(links, 0, 5)
    assert any(said in breach for breach in breaches_of_first(links, changed(first, device_id(5))))
    assert any(said in breach for breach in breaches_of_later(links, first, [changed(later, device_id(0))]))


def test_a_way_that_is_longer_than_by_the_first_writer_is_told() -> None:
    links = make_links(list(pairwise(range(6))))
    first, later = spread(links, 0, 5)
    far = replace(later, hops={**later.hops, device_id(0): 6})
    assert breaches_of_later(links, first, [far]) == ["entry 2: 1 devices reached by more links than a tree allows"]
