"""A GPU is opened for a model: what cannot start is said, and what runs out or dies gives its memory back."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import torch
import triton

from engine.errors import EngineError, ModelFileError
from engine.generation.loading import load_model
from engine.protocol import Load
from engine.runtimes import gpu
from engine.runtimes.base import CancelFlag
from kernels.device import DeviceMemoryError
from kernels.gpu.gpu_ops import GpuOps
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU


class Driver:
    """Triton's, which builds its launcher when it is first looked at."""

    def __init__(self, fails: Exception) -> None:
        self._fails = fails

    @property
    def active(self) -> Any:
        raise self._fails


@pytest.mark.skipif(ON_GPU, reason="there the driver is real")
@pytest.mark.parametrize(
    "fails",
    [
        subprocess.CalledProcessError(1, ["/usr/bin/gcc", "cuda_utils.c"]),  # no Python.h
        RuntimeError("Failed to find C compiler"),
        AssertionError("libcuda.so cannot found!"),
    ],
)
def test_a_launcher_that_cannot_be_built_is_said(
    fails: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(triton.runtime, "driver", Driver(fails))
    with pytest.raises(EngineError, match="cannot be used") as error:
        gpu.cuda_device(0)
    assert str(fails) in error.value.why and "python3-dev" in error.value.todo


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 MiB"
            ),
            "CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
        # A graph that is instantiated, and a kernel that is loaded, ask without torch's allocator.
        (RuntimeError("CUDA error: out of memory\nCompile with ..."), "CUDA error: out of memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "Triton Error [CUDA]: out of memory"),
    ],
)
def test_memory_that_runs_out_has_one_name(error: RuntimeError, words: str) -> None:
    with pytest.raises(DeviceMemoryError) as seen, GpuOps(DEVICE).active():
        raise error
    assert str(seen.value) == words


def test_other_errors_keep_theirs() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"), GpuOps(DEVICE).active():
        raise error


def test_what_a_closed_model_held_is_free_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies in cycles, and torch keeps its memory: neither would be seen as free."""
    order: list[str] = []

    class Held:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            order.append("collected")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("emptied"))
    Held()
    with pytest.raises(ModelFileError):  # it is the first thing that a load does
        load_model(Load("none.gguf"), CancelFlag(), lambda event: None)
    assert order == ["collected", "emptied"]
