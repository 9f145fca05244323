"""What holds for all tests with whole nodes: nothing is logged as an error that was not expected."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True)
def errors(caplog: pytest.LogCaptureFixture) -> Generator[set[str]]:
    """The errors that a test expects in the log; any other, or one that is missing, fails it."""
    expected: set[str] = set()
    yield expected
    assert {record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR} == expected
