"""The example in docs/testing-applications.md is a test that runs as it stands there, and that finds what it is said to find."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peersd.testing.namespaces import refusal

PAGE = Path(__file__).parents[2] / "docs" / "testing-applications.md"

COUNTER = """
SCHEMA = ["CREATE TABLE kitty (id TEXT PRIMARY KEY, cents INTEGER)", "INSERT INTO kitty VALUES ('all', 0)"]

async def pay(peers, who, cents):
    await peers.execute("UPDATE kitty SET cents = cents + ?", [cents])

async def balance(peers):
    return (await peers.query("SELECT cents FROM kitty")).rows[0][0]
"""

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.sim


def files_of_the_page() -> dict[str, str]:
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return dict(blocks)


@pytest.fixture
def example(pytester: pytest.Pytester) -> pytest.Pytester:
    for name, content in files_of_the_page().items():
        if not name.startswith("test_") or name == "test_kitty.py":
            (pytester.path / name).write_text(content)
    return pytester


@pytest.mark.parametrize("name", sorted(name for name in files_of_the_page() if name.startswith("test_")))
def test_all_examples_pass(name: str, example: pytest.Pytester) -> None:
    (example.path / name).write_text(files_of_the_page()[name])
    outcomes = example.runpytest_subprocess("-q", "-p", "no:cacheprovider", name, timeout=300).parseoutcomes()
    assert set(outcomes) == ({"passed"} if name != "test_cables.py" or refusal() is None else {"skipped"})


def test_a_kitty_that_is_one_counter_fails_the_example_s_test(example: pytest.Pytester) -> None:
    (example.path / "kitty.py").write_text(COUNTER)
    result = example.runpytest_subprocess("-q", "-p", "no:cacheprovider", "--tb=short", timeout=300)
    result.assert_outcomes(failed=3)
    result.stdout.re_match_lines([r".*assert \d+ == 1000"])


MARKED = """
import pytest

@pytest.mark.swarm({arguments})
async def test_nothing(swarm):
    swarm.isolate("ben")
    assert swarm.seed == 99, "mine"
"""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("seed=7", r".*ValueError: The seed comes from the fixture swarm_seed.*"),
        ("7", r".*ValueError: .* named arguments only.*"),
    ],
)
def test_what_a_mark_cannot_say_is_refused(arguments: str, sentence: str, example: pytest.Pytester) -> None:
    example.makepyfile(test_kitty=MARKED.format(arguments=arguments))
    result = example.runpytest_subprocess("-q", "-p", "no:cacheprovider", timeout=300)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.re_match_lines([sentence])


def test_an_assertion_of_the_test_that_fails_is_shown_with_the_seed_and_what_happened_last(example: pytest.Pytester) -> None:
    example.makepyfile(test_kitty=MARKED.format(arguments="devices=2"))
    result = example.runpytest_subprocess("-q", "-p", "no:cacheprovider", "--tb=short", timeout=300)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([".*a swarm with seed 0", r".*\d+\.\d{3} partition: ben \| ada", ".*AssertionError: mine"])
