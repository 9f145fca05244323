"""A fault or a name that means nothing is refused with a sentence, so that no test passes without the fault that it is about."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio

from peersd.testing.swarm import Conditions, Swarm, open_swarm

pytestmark = pytest.mark.sim

KNOWN = "known are 'ada', 'ben', 'cem'"

FAULTS: dict[str, tuple[Callable[[Swarm], object], str]] = {
    "a typo": (lambda swarm: swarm.partition(["adda"], ["ben"]), f"No device is called 'adda'; {KNOWN}"),
    "one side": (lambda swarm: swarm.partition(["ada"]), "A partition needs two sides or more"),
    "an empty side": (lambda swarm: swarm.partition(["ada"], []), "A partition needs two sides or more"),
    "a text as a side": (lambda swarm: swarm.partition("ada", "ben"), "not the text 'ada'"),
    "two sides": (lambda swarm: swarm.partition(["ada"], ["ada", "ben"]), "'ada' is on the sides of a partition more than once"),
    "isolated": (lambda swarm: swarm.isolate("nobody"), f"No device is called 'nobody'; {KNOWN}"),
    "clogged": (lambda swarm: swarm.network.clog("nobody"), f"No device is called 'nobody'; {KNOWN}"),
    "clogged from": (lambda swarm: swarm.network.clog("ada", from_=["nobody"]), f"No device is called 'nobody'; {KNOWN}"),
    "refused": (lambda swarm: swarm.network.refuse("nobody"), f"No device is called 'nobody'; {KNOWN}"),
    "broken": (lambda swarm: swarm.network.break_links("adda", "ben"), f"No device is called 'adda'; {KNOWN}"),
    "severed": (lambda swarm: swarm.network.sever_links("ada", "bem"), f"No device is called 'bem'; {KNOWN}"),
    "to itself": (lambda swarm: swarm.network.break_links("ada", "ada"), "'ada' has no links to itself"),
    "conditions": (
        lambda swarm: swarm.network.set_conditions(Conditions(), hosts=["adda"]),
        f"No device is called 'adda'; {KNOWN}",
    ),
    "the clock": (lambda swarm: swarm.set_clock("adda", skew_ms=1), f"No device is called 'adda'; {KNOWN}"),
    "a client": (lambda swarm: swarm.peers("adda"), f"No device is called 'adda'; {KNOWN}"),
    "a group": (lambda swarm: swarm.group_id("g2"), "No group is called 'g2'; known are 'g1'"),
}


async def test_a_fault_that_would_do_nothing_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=3) as swarm:
        for what, (fault, sentence) in FAULTS.items():
            with pytest.raises(ValueError, match=sentence):
                fault(swarm)
                pytest.fail(f"nothing was said of {what}")
        swarm.heal()
        await swarm.converged()


async def test_what_a_device_cannot_do_in_its_state_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2) as swarm:
        with pytest.raises(ValueError, match=r"ben cannot be started: it runs\. Running are: ada, ben\."):
            await swarm.restart("ben")
        await swarm.crash("ben")
        with pytest.raises(ValueError, match=r"ben cannot crash: it does not run\. Running are: ada\."):
            await swarm.crash("ben")
        with pytest.raises(ValueError, match="ben cannot be stopped: it does not run"):
            await swarm.stop("ben")
        with pytest.raises(ValueError, match="No device is called 'nobody'; known are 'ada', 'ben'"):
            await swarm.crash("nobody")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"devices": ["ada", "ada"]}, "'ada' is in `devices` more than once"),
        ({"devices": 0}, "A swarm needs a device: `devices` is 0"),
        ({"devices": []}, "A swarm needs a device"),
        ({"devices": "ada"}, "not the text 'ada'"),
        ({"devices": ["ada", ""]}, "No user may be called ''"),
        ({"devices": ["ada", "../ben"]}, "names a folder too, which not all of these can: 'ada', '../ben'"),
        ({"groups": -1}, "`groups` is -1"),
        ({"groups": {"a\0b": ["ada"]}}, r"No group may be called 'a\\x00b'"),
        ({"groups": {"all": ["ada", "zoe"]}}, f"No device is called 'zoe'; {KNOWN}"),
        ({"groups": {"all": []}}, "The group 'all' has no member"),
        ({"groups": {"all": ["ada", "ada"]}}, "'ada' is in the group 'all' more than once"),
        ({"schema": "CREATE TABLE t (id TEXT PRIMARY KEY)"}, "`schema` is a list of statements, not the text 'CREATE TABLE"),
        (
            {"groups": 2, "schema": ["CREATE TABLE t (id NONSENSE"]},
            r"The statement 'CREATE TABLE t \(id NONSENSE' of `schema` failed: ",
        ),
    ],
)
async def test_a_swarm_that_cannot_be_is_refused(
    options: dict[str, Any], sentence: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(ValueError, match=sentence):
        async with open_swarm(**options):
            pytest.fail("the swarm has begun")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": 1.0}, "`loss` is 1.0; give a chance from 0 to below 1"),
        ({"loss": -0.1}, "`loss` is -0.1"),
        ({"latency_ms": (20, 2)}, r"`latency_ms` is \(20, 2\); give the least and the greatest"),
        ({"latency_ms": (-1, 2)}, r"`latency_ms` is \(-1, 2\)"),
        ({"bytes_per_s": 0}, "`bytes_per_s` is 0; give more than 0"),
        ({"bytes_per_s": math.nan}, "`bytes_per_s` is nan"),
    ],
)
def test_a_network_that_cannot_be_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Conditions(**options)


async def test_a_failure_of_the_body_is_shown_with_the_seed_and_what_happened_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(AssertionError, match="mine") as failed:
        async with open_swarm(devices=2, seed=7) as swarm:
            swarm.isolate("ben")
            raise AssertionError("mine")
    (note,) = failed.value.__notes__
    assert note.startswith("a swarm with seed 7\n") and note.endswith("partition: ben | ada")
