"""Nothing that a test started goes on after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.plain.chats import RUNNING


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Close every chat of the test."""
    yield
    while RUNNING:
        RUNNING.pop().close()
