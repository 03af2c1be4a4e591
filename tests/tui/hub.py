"""A local hub for the screen's tests: models to search, pull and talk with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.probes import memory as memory_probe
from tests.support.hub_server import HubServer, Repo, hub_server
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
    monkeypatch.setattr(memory_probe, "read_speeds", lambda cores: (((1, 20.0), (2, 40.0)), []))
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def split_model(folder: Path) -> dict[str, bytes]:
    """A tiny mixture-of-experts model in `PARTS` files, as names and bytes."""
    whole = tiny_model("qwen3moe", folder, expert_type="Q4_K")
    reader = gguf.GGUFReader(whole)
    tensors = -(-len(reader.tensors) // PARTS)
    writer = gguf.GGUFWriter(None, "qwen3moe", split_max_tensors=tensors)
    for name, entry in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = entry.types[-1] if len(entry.types) > 1 else None
            writer.add_key_value(name, entry.contents(), entry.types[0], sub_type)
    for tensor in reader.tensors:
        data = np.asarray(tensor.data)
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    target = folder / "split" / "Tiny-MoE-Q4_K.gguf"
    target.parent.mkdir()
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {path.name: path.read_bytes() for path in sorted(target.parent.iterdir())}


def with_split_model(server: HubServer, folder: Path) -> int:
    """Put the split model on the hub; its bytes."""
    files = split_model(folder)
    assert len(files) == PARTS
    server.repos[REPO] = Repo(files)
    return sum(map(len, files.values()))
