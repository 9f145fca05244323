"""Many replication machines at once, in virtual time: everything reaches everyone, and how many bytes of entries that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd.testing.machines.replication_network import Network, Node
from peersd.testing.machines.replication_stores import encode_entries
from peersd_protocol.constants import GAP_DELAY_MS, HAVE_DELAY_MS

LINK_MS = 10
HOP_MS = LINK_MS + 2
"""A link and the store."""


def make_network(
    links: Iterable[tuple[int, int]], count: int, seed: int = 0, delay_ms: tuple[int, int] = (LINK_MS, LINK_MS)
) -> Network:
    """Nodes 0, 1, 2 …, linked and at rest."""
    network = Network(seed, delay_ms)
    for _ in range(count):
        network.add_node()
    for one, other in links:
        network.connect(network.nodes[one], network.nodes[other])
    network.run()
    return network


def bytes_of(network: Network, act: Callable[[], None]) -> int:
    """Bytes of entries that are sent until `act` and what follows from it are over."""
    before = network.entry_bytes
    act()
    network.run()
    network.check_equal()
    return network.entry_bytes - before


def write_bytes(network: Network, node: Node) -> int:
    """Bytes that are sent for one write, in copies of the entry."""
    size = 0

    def write() -> None:
        nonlocal size
        size = len(encode_entries([node.write()]))

    return bytes_of(network, write) // size


# --- Small shapes ---------------------------------------------------------------------------------------------------------------


def test_along_a_line_each_entry_crosses_each_link_once() -> None:
    network = make_network(pairwise(range(5)), 5)
    assert [write_bytes(network, network.nodes[number]) for number in (0, 2, 4, 1, 3)] == [4] * 5
    assert [node.eager() for node in network.nodes] == [{2}, {1, 3}, {2, 4}, {3, 5}, {4}]


def test_in_a_triangle_one_link_is_pruned_by_the_first_entry_that_crosses_it_twice() -> None:
    network = make_network([(0, 1), (0, 2), (1, 2)], 3)
    assert write_bytes(network, network.nodes[0]) == 4
    assert [node.eager() for node in network.nodes] == [{2, 3}, {1}, {1}]
    assert [write_bytes(network, node) for node in network.nodes] == [2, 2, 2]


def test_a_tree_that_breaks_is_mended_by_have_and_want_and_then_pushes_again() -> None:
    network = make_network([(0, 1), (1, 2), (2, 3), (3, 0)], 4)
    write_bytes(network, network.nodes[0])
    lazy = [(one, other) for one in network.nodes for other in one.links if other.name not in one.eager()]
    assert len(lazy) == 2  # one link, seen from both sides
    one, other = next((one, other) for one in network.nodes for other in one.links if other.name in one.eager())
    network.cut(one, other)
    network.nodes[0].write()
    network.run(HAVE_DELAY_MS + GAP_DELAY_MS + 10 * HOP_MS)
    assert all(len(node.store.entries) == 2 for node in network.nodes)
    assert all(node.eager() == {other.name for other in node.links} for node in network.nodes)
    network.nodes[2].write()
    network.run(3 * HOP_MS)
    assert all(len(node.store.entries) == 3 for node in network.nodes)
    network.run()
    network.check_equal()


def test_a_log_that_is_written_to_all_the_time_is_pushed_again_after_the_tree_broke() -> None:
    """Announcing and asking for each entry would cost everyone behind the break 250 ms for ever."""
    network = make_network([(0, 1), (1, 2), (0, 2)], 3)
    writer = network.nodes[0]
    write_bytes(network, writer)
    assert network.nodes[1].eager() == {1}
    network.cut(writer, network.nodes[1])
    for _ in range(60):
        writer.write()
        network.run(20)
    network.run(2 * HOP_MS)
    assert [len(node.store.entries) for node in network.nodes] == [61, 61, 61]
    network.run()
    network.check_equal()


def test_who_holds_an_entry_by_any_way_is_known_to_hold_it_by_all_it_is_linked_to() -> None:
    network = make_network(combinations(range(5), 2), 5)
    for node in network.nodes * 3:
        write_bytes(network, node)
    vector = network.nodes[0].machine.vector()
    assert sum(len(node.eager()) for node in network.nodes) == 8  # four links, seen from both sides
    for node in network.nodes:
        assert all(node.machine.durable_vector(end.id) == vector for end in node.links.values())


# --- Ten devices, three links each ----------------------------------------------------------------------------------------------


def regular_links(network: Network, count: int, degree: int) -> list[tuple[int, int]]:
    """A random connected graph in which each node has `degree` links."""
    while True:
        stubs = [number for number in range(count) for _ in range(degree)]
        network.random.shuffle(stubs)
        links = {(min(pair), max(pair)) for pair in zip(stubs[::2], stubs[1::2], strict=True)}
        reached = {0}
        for _ in range(count):
            reached |= {number for link in links if reached & set(link) for number in link}
        if len(links) == count * degree // 2 and all(one != other for one, other in links) and len(reached) == count:
            return sorted(links)


def ten_devices(seed: int) -> Network:
    network = make_network([], 10, seed, delay_ms=(1, 30))
    for one, other in regular_links(network, 10, 3):
        network.connect(network.nodes[one], network.nodes[other])
    network.run()
    assert all(len(node.links) == 3 for node in network.nodes)
    return network


def copies_sent(network: Network, writers: Sequence[int], rounds: int, pause_ms: int, round_ms: int) -> float:
    """Bytes of entries sent, in multiples of what nine deliveries of each entry take."""
    needed = 0

    def write() -> None:
        nonlocal needed
        for _ in range(rounds):
            for writer in writers:
                needed += 9 * len(encode_entries([network.nodes[writer].write()]))
                network.run(pause_ms)
            network.run(round_ms)

    return bytes_of(network, write) / needed


@pytest.mark.parametrize("seed", range(6))
def test_single_writes_of_ten_devices_cross_a_tree(seed: int) -> None:
    network = ten_devices(seed)
    first = copies_sent(network, [0], 1, 0, 0)
    assert 1.5 < first <= 2.5  # each of the 15 links but those that the tree has, twice
    assert copies_sent(network, range(10), 5, 1000, 0) <= 1.2
    assert copies_sent(network, range(10), 2, 1000, 0) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("writers", [(0,), (0, 3, 7), range(10)], ids=["one", "three", "all"])
@pytest.mark.parametrize("round_ms", [20, 100, 1000])
def test_whatever_ten_devices_write_at_once_takes_at_most_two_and_a_half_copies(
    seed: int, writers: Sequence[int], round_ms: int
) -> None:
    network = ten_devices(seed)
    assert copies_sent(network, writers, 10, 0, round_ms) <= 2.5
    assert copies_sent(network, writers, 10, 0, round_ms) <= 2.5


@pytest.mark.parametrize("seed", range(6))
def test_links_that_come_and_go_while_ten_devices_write_cost_little_more(seed: int) -> None:
    network = ten_devices(seed)
    copies_sent(network, [0], 1, 0, 0)
    needed, before = 0, network.entry_bytes
    for turn in range(100):
        writer = network.random.choice(network.nodes)
        needed += 9 * len(encode_entries([writer.write()]))
        if turn % 10 == 5:
            one = network.random.choice([node for node in network.nodes if len(node.links) == 3])
            other = network.random.choice(sorted(one.links, key=lambda node: node.name))
            network.cut(one, other)
            network.after(300, lambda one=one, other=other: network.connect(one, other))  # type: ignore[misc]
        network.run(100)
    network.run()
    network.check_equal()
    assert network.entry_bytes - before <= 2.5 * needed


# --- Catching up ----------------------------------------------------------------------------------------------------------------


def sources(count: int, entries: int) -> Network:
    """Devices that share a history, each ahead of the others by some entries, and a new one that is linked to all."""
    network = make_network(combinations(range(count), 2), count)
    for turn in range(entries):
        network.nodes[turn % count].write(1000)
        network.run(0 if turn % 20 else 500)
    network.run()
    for one, other in combinations(network.nodes, 2):
        network.cut(one, other)
    for number, node in enumerate(network.nodes):
        for _ in range(10 * number + 5):
            node.write(1000)
    network.run()
    new = network.add_node()
    for node in network.nodes[:-1]:
        network.connect(new, node)
    return network


def copies_received(node: Node) -> float:
    """Bytes of entries that came, in multiples of what is held now."""
    return node.entry_bytes_received / sum(len(encode_entries([entry])) for entry in node.store.entries.values())


@pytest.mark.parametrize("count", [3, 8])
def test_a_new_device_with_several_links_receives_one_copy(count: int) -> None:
    network = sources(count, 500)
    network.run()
    network.check_equal()
    assert copies_received(network.nodes[-1]) <= 1.2


def test_a_new_device_receives_one_copy_while_others_write() -> None:
    network = sources(3, 500)
    for _ in range(50):
        for node in network.nodes[:3]:
            node.write(1000)
        network.run(20)
    network.run()
    network.check_equal()
    assert copies_received(network.nodes[-1]) <= 1.2


@pytest.mark.parametrize(("after_ms", "parts"), [(30, 0), (50, 2), (55, 4)])
def test_a_new_device_whose_source_goes_away_takes_the_rest_from_others(after_ms: int, parts: int) -> None:
    network = sources(3, 1000)
    network.run(after_ms)
    new = network.nodes[-1]
    assert len(new.store.entries) == parts * 197  # a message of the stream holds so many
    source = max(new.links, key=lambda node: len(new.links[node].asked))
    network.cut(new, source)
    network.run()
    left = [node for node in network.nodes if node is not source]
    held = {name for node in left[:-1] for name in node.store.entries}
    assert new.store.entries.keys() >= held
    assert copies_received(new) <= 1.2


def test_a_source_that_says_nothing_more_is_left_after_5_s() -> None:
    network = sources(3, 1000)
    network.run(60)
    new = network.nodes[-1]
    for node in new.links:
        if not node.links[new].is_stuck and len(new.links[node].asked):
            node.links[new].is_stuck = True
            break
    network.run(7_000)
    held = {name for node in network.nodes[:3] if not node.links[new].is_stuck for name in node.store.entries}
    assert new.store.entries.keys() >= held


# --- Whatever happens -----------------------------------------------------------------------------------------------------------

node_index = st.integers(0, 11)
steps = st.one_of(
    st.tuples(st.just("write"), node_index, st.sampled_from([10, 200, 20_000])),
    st.tuples(st.just("write"), node_index, st.sampled_from([10, 200, 20_000])),
    st.tuples(st.just("connect"), node_index, node_index),
    st.tuples(st.just("connect"), node_index, node_index),
    st.tuples(st.just("cut"), node_index, node_index),
    st.tuples(st.just("stick"), node_index, node_index),
    st.tuples(st.just("join"), node_index, node_index),
    st.tuples(st.just("clone"), node_index, node_index),
    st.tuples(st.just("wait"), st.sampled_from([1, 10, 60, 300, 3000]), st.just(0)),
)


def take_step(network: Network, kind: str, first: int, second: int) -> None:
    nodes = network.nodes
    if kind == "wait":
        network.run(first)
        return
    one, other = nodes[first % len(nodes)], nodes[second % len(nodes)]
    if kind == "write":
        one.write(second)
    elif kind == "connect" and one is not other and other not in one.links:
        network.connect(one, other)
    elif kind == "cut" and other in one.links:
        network.cut(one, other)
    elif kind == "stick" and other in one.links:
        one.links[other].is_stuck = True
    elif kind == "join" and len(nodes) < 10:
        network.add_node()
    elif kind == "clone" and len(nodes) < 10:
        network.add_clone(one)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 6), st.sampled_from([(1, 5), (1, 40), (50, 150)]), st.lists(steps, min_size=20, max_size=150))
def test_whatever_links_come_and_go_everyone_gets_everything(
    count: int, delay_ms: tuple[int, int], taken: list[tuple[str, int, int]]
) -> None:
    network = make_network([], count, delay_ms=delay_ms)
    for step in taken:
        take_step(network, *step)
    for node in network.nodes:
        for end in node.links.values():
            end.is_stuck = False
            end.flush()
    for one, other in pairwise(network.nodes):
        if other not in one.links:
            network.connect(one, other)
    network.run()
    network.check_equal()
