"""A fixture for pytest: a swarm under virtual time, for tests of applications (docs/testing-applications.md).

    pytest_plugins = ["peersd.testing.plugin"]     # in the root conftest.py

It needs pytest-trio. A test that takes `swarm` is run by trio under a virtual clock, with or without the mark `trio`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Any, Final

import pytest
import trio

from peersd.testing.swarm import Swarm, SwarmFailed, open_swarm, virtual_clock


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known."""
    config.addinivalue_line("markers", "swarm(...): arguments of peersd.testing.swarm.open_swarm for the fixture `swarm`")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Has the tests that take a swarm run under a virtual clock: pytest-trio looks for one among a test's own arguments only."""
    for item in items:
        if "swarm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=_run_virtually), append=False)


def _run_virtually(
    main: Callable[..., Awaitable[Any]], *, clock: trio.abc.Clock | None = None, instruments: Sequence[trio.abc.Instrument] = ()
) -> object:
    return trio.run(main, clock=clock or virtual_clock(), instruments=instruments)


_STORY: Final = pytest.StashKey[str]()
"""The seed of a test's swarm and what happened in it last, as the test's own part ended."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Shows the seed and what happened last when an assertion of the test itself fails."""
    story = item.stash.get(_STORY, None)
    if story is not None and call.excinfo is not None and not isinstance(call.excinfo.value, SwarmFailed):
        call.excinfo.value.add_note(story)
    return (yield)


@pytest.fixture
def swarm_seed() -> int:
    """The seed of the fixture `swarm`; `@pytest.mark.parametrize("swarm_seed", range(20))` runs a test with many."""
    return 0


@pytest.fixture
async def swarm(request: pytest.FixtureRequest, swarm_seed: int) -> AsyncGenerator[Swarm]:
    """A running swarm, as the mark `swarm` describes it; by default three devices in one group."""
    options: dict[str, Any] = {"seed": swarm_seed}
    for mark in request.node.iter_markers("swarm"):
        if mark.args:
            raise ValueError(f"The mark swarm takes named arguments only, such as swarm(devices=3); not {mark.args!r}.")
        if "seed" in mark.kwargs:
            raise ValueError("The seed comes from the fixture swarm_seed: @pytest.mark.parametrize('swarm_seed', [7]).")
        options = {**mark.kwargs, **options}
    async with open_swarm(**options) as opened:
        try:
            yield opened
        finally:
            request.node.stash[_STORY] = opened.story()
