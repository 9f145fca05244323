"""The specification's numbering, the references to it, and its tables of bounds and close codes hold together."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest

from peersd_protocol import constants
from peersd_protocol.errors import CloseCode

ROOT = Path(__file__).resolve().parents[2]
SPEC = (ROOT / "protocol" / "SPEC.md").read_text(encoding="utf-8")
RULES = re.findall(r"^- \*\*([A-Z])-(\d+)\*\*", SPEC, re.MULTILINE)
RULE = re.compile(r"\b([A-Z])-(\d+)\b")
LETTERS = sorted({letter for letter, _ in RULES})


def files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".sql", ".md")]
    return sorted(path for path in found if path != Path(__file__).resolve())


def used_bounds() -> dict[str, int]:
    code = "".join(path.read_text(encoding="utf-8") for path in files("peersd", "protocol") if path.name != "constants.py")
    words = set(re.findall(r"\b[A-Z][A-Z_]+\b", code))
    return {name: value for name, value in vars(constants).items() if name in words - {"KIB", "MIB"}}


def stated_bounds() -> dict[str, int]:
    rows = re.findall(r"^\| ([A-Z][A-Z_, ]+) \| ([\d,^ ]+) \|", SPEC.split("## 18. Bounds")[1], re.MULTILINE)
    stated: dict[str, int] = {}
    for names, values in rows:
        for name, value in zip(names.split(", "), values.split(", "), strict=True):
            base, _, exponent = value.replace(",", "").partition("^")
            stated[name] = int(base) ** int(exponent or 1)
    return stated


@pytest.mark.parametrize("letter", LETTERS)
def test_the_rules_of_a_letter_are_numbered_without_gaps_in_the_order_they_stand_in(letter: str) -> None:
    numbers = [int(number) for found, number in RULES if found == letter]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_parts_stand_in_this_order() -> None:
    assert [letter for letter, _ in groupby(letter for letter, _ in RULES)] == list("EISTEUADNFMLORBC")


def test_every_rule_that_the_specification_refers_to_is_in_it() -> None:
    assert {rule for rule in RULE.findall(SPEC) if rule[0] in LETTERS} - set(RULES) == set()


def test_every_rule_that_code_tests_and_pages_refer_to_is_in_the_specification() -> None:
    named = {
        rule: f"{path.relative_to(ROOT)}: {reference}"
        for path in files("peersd", "protocol/peersd_protocol", "protocol/vectors", "tests", "docs")
        for reference in re.findall(r"SPEC[:, ][^)\"\n]*", path.read_text(encoding="utf-8"))
        for rule in RULE.findall(reference)
    }
    assert len(named) >= 20
    assert {place for rule, place in named.items() if rule not in set(RULES)} == set()


def test_the_table_of_bounds_has_every_bound_that_code_uses_with_its_value() -> None:
    used = used_bounds()
    assert len(used) > 80
    assert {name: value for name, value in stated_bounds().items() if name in used} == used


def test_the_table_of_close_codes_has_every_code_with_its_number() -> None:
    rows = re.findall(r"^  \| (\d+) \| ([A-Z_]+) \|", SPEC.split("## 17. Close codes")[1], re.MULTILINE)
    assert {name: int(number) for number, name in rows} == {code.name: code.value for code in CloseCode}
