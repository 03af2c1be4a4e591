"""A local hub for the screen's tests: models to search, pull and talk with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.gguf.file import GGUFFile
from engine.machine.probes import bandwidth
from tests.support.hub_server import HubServer, Repo, hub_server
from tests.support.split_model import split_model as split_into_files
from tests.support.tiny import tiny_model

REPO = "owner/Tiny-MoE-GGUF"
PARTS = 3


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub; nothing of this machine's own settings or models is seen."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "LLAMA_CACHE", "OLLAMA_MODELS", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home / "user"))
    monkeypatch.setattr(bandwidth, "read_speeds", lambda cores: (((1, 20.0), (2, 40.0)), []))
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def split_model(folder: Path) -> dict[str, bytes]:
    """A tiny mixture-of-experts model in `PARTS` files, as names and bytes."""
    whole = tiny_model("qwen3moe", folder, expert_type="Q4_K")
    with GGUFFile.open(whole) as file:
        tensors = -(-len(file.tensors) // PARTS)
    target = folder / "split"
    target.mkdir()
    parts = split_into_files(whole, target, "Tiny-MoE-Q4_K", tensors)
    return {path.name: path.read_bytes() for path in parts}


def with_split_model(server: HubServer, folder: Path) -> int:
    """Put the split model on the hub; its bytes."""
    files = split_model(folder)
    assert len(files) == PARTS
    server.repos[REPO] = Repo(files)
    return sum(map(len, files.values()))
