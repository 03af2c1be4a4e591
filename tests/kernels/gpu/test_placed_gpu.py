"""A conversation's runtime over the GPU's own op set: loaded, sized, warmed and asked, in the interpreter too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.gguf.file import GGUFFile
from engine.plan.placement import LayerPlace, Placement
from engine.runtimes import placed
from engine.runtimes.native import NativeRuntime
from engine.runtimes.placed import load_placed
from engine.spec.reader import read_spec
from kernels.cpu import CpuOps
from kernels.device import DeviceMemoryError
from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.quant import matmul
from kernels.reference import ReferenceOps
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU
from tests.support.fidelity import logits, nmse
from tests.support.tiny import tiny_model
from tests.support.tiny_shapes import SHAPES

MIB = 1 << 20
TOKENS = list(range(3, 103))
CONTEXT = 64 if ON_GPU else 32
REPLY = 20 if ON_GPU else 3


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few programs for the interpreter."""
    if ON_GPU:
        return
    monkeypatch.setattr(matmul, "_GEMM_ROWS", 512)
    monkeypatch.setattr(placed, "SIZES", (1, CONTEXT))
    for key, shape in SHAPES.items():
        monkeypatch.setitem(SHAPES, key, replace(shape, layers=2, heads=2, kv_heads=1))


def load(path: Path, placement: Placement, limit: int, opened: list[GpuOps]) -> NativeRuntime:
    def device(gpu: int) -> Any:
        opened.append(GpuOps(torch.device(DEVICE, gpu) if ON_GPU else DEVICE, limit))
        return opened[-1]

    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        return load_placed(file, spec, placement, device, lambda gpu, memory: MIB, threads=2)


@pytest.mark.parametrize("experts", [0, 5, 16] if ON_GPU else [5])
def test_a_model_is_loaded_sized_and_says_what_it_should(experts: int, tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path, expert_type="Q8_0")
    placement = Placement((LayerPlace(0, experts),) * 2, CONTEXT, "f16")
    opened: list[GpuOps] = []
    limit = 384 * MIB
    runtime = load(path, placement, limit, opened)
    assert runtime.context == CONTEXT
    (device,) = opened
    page = runtime.kv_bytes_per_token * 32
    with GGUFFile.open(path) as file:
        most = -(-read_spec(file).context // 32) + 1
    pages = runtime._prefixes.free_pages
    assert pages == most or MIB <= device.memory().free < MIB + page
    runtime.begin(TOKENS)
    at = CONTEXT - REPLY - 1
    rows = [runtime.forward(TOKENS[:at])]
    rows += [runtime.forward([token]) for token in TOKENS[at : at + REPLY]]
    chunks = [at, *[1] * REPLY]
    keep = slice(at - 1, at + REPLY)
    wanted = logits(path, ReferenceOps(), chunks, TOKENS[: at + REPLY])[keep]
    on_cpu = nmse(logits(path, CpuOps(2), chunks, TOKENS[: at + REPLY])[keep], wanted)
    for row, expected in zip(rows, wanted, strict=True):
        assert nmse(row, expected) < 2e-5 + 2 * on_cpu
    runtime.close()


def test_weights_that_do_not_fit_are_refused_in_numbers(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    placement = Placement((LayerPlace(0, 0),) * 2, CONTEXT, "f16")
    with pytest.raises(DeviceMemoryError, match="bytes wanted"):
        load(path, placement, MIB // 2, [])
