"""A hub, a models folder, and how many connections a download gets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.downloads import (
    NAME,
    REPO,
    SIZE,
)
from tests.support.hub_server import HubServer, Repo, hub_server


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as running:
        running.repos[REPO] = Repo({NAME: random.Random(1).randbytes(SIZE)})
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture(params=[1, 3], ids=["one connection", "three connections"])
def connections(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many connections a file of the tests gets."""
    if request.param > 1:
        monkeypatch.setattr("engine.downloads.connections.MANY_CONNECTIONS", 1)
    return int(request.param)
