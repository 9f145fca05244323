"""What a text means among ids and names that others gave."""

from __future__ import annotations

import pytest

from peersd.errors import PeersdError
from peersd.node.naming import find

KNOWN = [("grp-aaaa1111", "boats", 1), ("grp-aaaa2222", "cars", 2), ("grp-bbbb3333", "boats", 3), ("grp-cccc4444", "grp-bbbb", 4)]


@pytest.mark.parametrize(
    ("text", "found"), [("grp-aaaa1111", 1), ("grp-aaaa2", 2), ("cars", 2), ("grp-cccc", 4), ("grp-bbbb3", 3)]
)
def test_an_id_a_prefix_that_is_one_ids_alone_and_a_name_that_is_unique_are_understood(text: str, found: int) -> None:
    assert find(text, KNOWN, code="group_not_found", what="group") == found


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("boats", ["grp-aaaa1111", "grp-bbbb3333"]),
        ("grp-aaaa", ["grp-aaaa1111", "grp-aaaa2222"]),
        ("grp-bbbb", ["grp-bbbb3333", "grp-cccc4444"]),
    ],
    ids=["name", "prefix", "a name that looks like the beginning of another's id"],
)
def test_a_text_that_means_several_is_refused_with_their_ids(text: str, ids: list[str]) -> None:
    with pytest.raises(PeersdError) as failed:
        find(text, KNOWN, code="group_not_found", what="group")
    assert failed.value.code == "name_ambiguous"
    assert failed.value.extra["ids"] == ids


@pytest.mark.parametrize("text", ["grp-a", "grp-zzzz", "boat", ""])
def test_a_text_that_means_none_is_told_so(text: str) -> None:
    with pytest.raises(PeersdError) as failed:
        find(text, KNOWN, code="group_not_found", what="group")
    assert failed.value.code == "group_not_found"
