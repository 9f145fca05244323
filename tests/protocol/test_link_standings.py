"""What a device makes of the other end of a link, by what it knows: every case that is told apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from peersd_protocol.lanes import Standing
from peersd_protocol.link_standings import Known

NOTHING = Known(
    is_own=False, is_remote=False, was_remote=False, is_empty=False, is_same_user=False, is_untold=False, has_asked=False
)


@pytest.mark.parametrize(("has_asked", "is_untold", "is_same_user"), list(product((False, True), repeat=3)))
def test_a_member_shares_with_members_tells_former_ones_and_knows_nobody_else(
    has_asked: bool, is_untold: bool, is_same_user: bool
) -> None:
    own = replace(NOTHING, is_own=True, has_asked=has_asked, is_untold=is_untold, is_same_user=is_same_user)
    assert replace(own, is_remote=True).standing is Standing.MEMBER
    assert replace(own, was_remote=True).standing is Standing.FORMER
    assert own.standing is Standing.NONE


def test_who_has_left_tells_members_until_one_has_heard_it() -> None:
    left = replace(NOTHING, is_untold=True)
    assert replace(left, is_remote=True).standing is Standing.LEAVING
    assert replace(left, was_remote=True).standing is Standing.NONE
    assert replace(NOTHING, is_remote=True).standing is Standing.OUT


@pytest.mark.parametrize("known", [{"is_remote": True}, {"is_same_user": True}, {"is_empty": True}])
def test_who_is_no_member_asks_back_members_its_users_devices_and_anybody_as_long_as_it_knows_nobody(
    known: dict[str, bool],
) -> None:
    asked = replace(NOTHING, has_asked=True, **known)
    assert asked.standing is Standing.LEAVING
    assert replace(asked, has_asked=False).standing is (Standing.OUT if asked.is_remote else Standing.NONE)


def test_who_is_no_member_and_knows_the_members_answers_no_stranger_and_no_former_member() -> None:
    assert replace(NOTHING, has_asked=True).standing is Standing.NONE
    assert replace(NOTHING, has_asked=True, was_remote=True).standing is Standing.NONE
