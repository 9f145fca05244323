"""While no file handle is left the node goes on with what it knows, and comes to no wrong conclusion."""

from __future__ import annotations

import os
import resource
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import pytest

from peersd.errors import PeersdError
from peersd.node import open_node
from peersd.node.advertise import OwnAddresses, advertised_urls
from peersd.node.environment import Environment, WebSockets
from peersd.store.mark import MarkFile
from tests.node.two_nodes import NOTE, group_of, open_ada, texts, until, write

WILDCARDS = ["ws://0.0.0.0:7330", "ws://[::]:7330"]
SPARE = 64
"""Handles that the process may have had to open to come to its limit."""


@contextmanager
def no_file_handles() -> Generator[None]:
    """Within, this process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, taken[0] + SPARE), hard))
    try:
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_addresses_told_last_stay_while_the_system_tells_none(caplog: pytest.LogCaptureFixture) -> None:
    own = OwnAddresses()
    before = own.behind(WILDCARDS)
    assert before == advertised_urls(WILDCARDS) != []
    for _ in range(2):
        caplog.clear()
        with no_file_handles():
            with pytest.raises(OSError, match="Too many open files"):
                advertised_urls(WILDCARDS)
            assert [own.behind(WILDCARDS) for _ in range(3)] == [before] * 3
            assert own.behind(WILDCARDS[:1]) == []  # nothing was ever told of these
        assert caplog.messages == ["addresses_unknown"]
        assert own.behind(WILDCARDS) == before


async def test_a_mark_that_cannot_be_opened_for_want_of_handles_is_not_taken_for_none(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        await ada.group_create(user=None, name="one", description=None)
        await ada.sql_execute(user=None, group="one", sql=NOTE, params=(), timeout_s=60)
        await write(ada, "one", "before")
        group = group_of(ada, "one")
        await until(lambda: group.opened is None and group.is_current)
        async with group.use() as opened:
            epoch = opened.store.store.epoch
        await until(lambda: group.opened is None and group.is_current)
        mark = MarkFile(ada.data_dir / "marks" / f"{group.path.stem}.mark")
        kept = mark.load()
        assert kept is not None and kept.epoch == epoch
        with no_file_handles():
            with pytest.raises(OSError, match="Too many open files"):
                mark.load()
            with pytest.raises(PeersdError) as failed:
                await texts(ada, "one")
            assert (failed.value.code, failed.value.retry) == ("busy", True)
        await write(ada, "one", "after")
        async with group.use() as opened:
            assert opened.store.store.epoch == epoch
        assert await texts(ada, "one") == ["after", "before"]


class Looks(WebSockets):
    """The machine's own network, which counts how often it is asked for the machine's addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def reachable_at(self, listen_urls: Iterable[str]) -> list[str]:
        """See Network."""
        self.count += 1
        return super().reachable_at(listen_urls)


async def test_tickets_and_beacons_state_addresses_without_asking_the_system(tmp_path: Path) -> None:
    network = Looks()
    (tmp_path / "ada").mkdir(mode=0o700)
    async with open_node(tmp_path / "ada", listen=["ws://127.0.0.1:0"], environment=Environment(network=network)) as ada:
        await ada.init(user_name="ada", device_name="laptop")
        assert network.count  # by now it has looked
        looks = network.count
        assert ada.own_addresses() == ada.listen_urls
        for _ in range(100):
            ada.own_addresses()
        assert network.count == looks
