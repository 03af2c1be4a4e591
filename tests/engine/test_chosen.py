"""Where a model is loaded: on a GPU where one works, and on the CPU, which says why, where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import GpuUnusableError, MemoryShortError, RequestError
from engine.gguf.file import GGUFFile
from engine.protocol import Load
from engine.runtimes import chosen, gpu
from engine.runtimes.chosen import open_native, plan_for_load
from engine.spec.reader import read_spec
from tests.support.plans import machine
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny import tiny_model


class Desk:
    """A machine with a GPU, or as many as there are sizes."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *vram: float) -> None:
        self.path, self.said, self.opened = path, [], 0  # type: ignore[var-annotated]
        hardware = machine(64, *vram)
        monkeypatch.setattr(chosen, "gpus", lambda: (hardware.gpus, [], []))
        monkeypatch.setattr(chosen, "probe", lambda measure: hardware)
        monkeypatch.setattr(gpu, "cuda_device", self.open)
        monkeypatch.setattr(gpu, "check_gpu", lambda *arguments: None)
        self.broken = False

    def open(self, number: int) -> SimulatedDevice:
        self.opened += 1
        if self.broken:
            raise GpuUnusableError("The GPU cannot be used", "torch sees none", "Use --device cpu")
        return SimulatedDevice(4 << 30)

    def load(self, **wishes: Any) -> str:
        """What computes."""
        with GGUFFile.open(self.path) as file:
            load = Load(str(self.path), threads=2, **wishes)
            runtime = open_native(file, read_spec(file), load, say=self.said.append)
            runtime.begin([1, 2, 3])
            assert runtime.forward([1, 2, 3]).shape == (runtime.vocab_size,)
            runtime.close()
            return runtime.device


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_model("qwen3moe", tmp_path)


def test_a_gpu_is_used_where_there_is_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(path, monkeypatch, 4)
    assert desk.load() == "GPU" and desk.opened == 1 and desk.said == []
    assert desk.load(device="cpu") == "CPU" and desk.opened == 1
    assert Desk(path, monkeypatch).load() == "CPU"


def test_a_gpu_that_cannot_be_used_after_all_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(path, monkeypatch, 4)
    desk.broken = True
    assert desk.load() == "CPU"
    assert desk.said == ["The CPU computes: the GPU cannot be used. torch sees none"]
    with pytest.raises(GpuUnusableError):
        desk.load(device="gpu")  # who asks for it wants to know


def test_a_gpu_that_is_not_there_is_an_error_for_who_asks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match="No NVIDIA GPU"):
        Desk(path, monkeypatch).load(device="gpu")
    with pytest.raises(RequestError, match=r"llama\.cpp"):
        Desk(path, monkeypatch, 4).load(device="gpu", runtime="llama.cpp")


def test_8_bits_are_kept_on_a_gpu_and_on_the_cpu_and_said_where_they_are_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu = Desk(path, monkeypatch, 4)
    assert with_gpu.load(kv="q8") == "GPU" and with_gpu.said == []
    without = Desk(path, monkeypatch)
    assert without.load(kv="q8") == "CPU" and without.said == []
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
    said: list[str] = []
    wish = Load(str(path), kv="q8")
    plan_for_load(replace(wish, runtime="llama.cpp"), spec, said.append)
    plan_for_load(wish, replace(spec, head_dim=40), said.append)
    assert "llama.cpp runs the model" in said[0] and "heads of 40 features" in said[1]


def test_a_model_that_fits_nowhere_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(path, monkeypatch, 4)
    with pytest.raises((MemoryShortError, RequestError)):
        desk.load(context=2_000_000_000, device="gpu")
    assert desk.opened == 0
