"""Which kernels attend, and when flashinfer plans: with a flashinfer that computes on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec.reader import read_spec
from kernels.gpu.flashinfer import wrappers as flash
from kernels.gpu.flashinfer.workspace import WORKSPACE_BYTES, prefill_split
from kernels.gpu.flashinfer.wrappers import Availability
from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.graph import inputs
from kernels.ops import CacheKind, CacheShape, Floats, Rope, Tensor
from kernels.quants import BY_NAME
from kernels.reference import ReferenceOps
from tests.kernels.gpu import fake_flashinfer
from tests.kernels.gpu.fake_flashinfer import Log
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU, error, normal
from tests.kernels.gpu.test_gpu_ops import HALF_CACHE, small, worst
from tests.support.tiny import tiny_model
from tests.support.tiny_shapes import SHAPES

pytestmark = [
    pytest.mark.skipif(ON_GPU, reason="there flashinfer is a real one, or none"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
assert small  # the fixture is used by its name
PAGE = 2
PAGES = page_table([5, 0, 3, 1, 4, 2])
TOKENS = np.random.default_rng(5).integers(0, 250, 12).astype(np.int32)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """flashinfer is installed."""
    log = Log(capturing=lambda: inputs._capturing(torch.device(DEVICE)))
    fake = fake_flashinfer.module(log)
    monkeypatch.setattr(flash, "available", lambda device: Availability(True))
    monkeypatch.setattr(flash, "load", lambda: fake)
    return log


def model_rows(
    path: Path, ops: Any, chunks: Sequence[int], pages: Any = PAGES, kv: CacheKind = "f16"
) -> Floats:
    """Logits of each chunk's last token."""
    rows, start = [], 0
    with GGUFFile.open(path) as file:
        model: Transformer[Any, Any, Any] = Transformer(
            file, read_spec(file), ops, len(PAGES), PAGE, kv=kv
        )
        for count in chunks:
            rows.append(model.forward(TOKENS[start : start + count], pages, start))
            start += count
    return np.stack(rows)


def test_a_step_is_planned_once_and_run_in_every_layer(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(SHAPES["qwen3", "qwen3"], layers=2)
    monkeypatch.setitem(SHAPES, ("qwen3", "qwen3"), two)
    path = tiny_model("qwen3", tmp_path)
    got = model_rows(path, GpuOps(DEVICE), (3, 1))
    assert log.calls == [
        # Of the last layer the last token is wanted; single tokens are Triton's.
        ("plan prefill", 3), ("prefill", 3),
    ]  # fmt: skip
    assert worst(got, model_rows(path, ReferenceOps(), (3, 1))) < HALF_CACHE


def test_other_pages_are_another_plan(log: Log) -> None:
    ops = GpuOps(DEVICE)
    cache = ops.kv_cache(CacheShape(1, 4, PAGE, 1, 64, 64))
    cache.values[0] = torch.arange(4)[:, None, None, None]
    q = normal(1, 2, 128)
    for pages, value in (([3, 0], 3), ([3, 0], 3), ([1, 0], 1)):
        out = ops.attention(q, 2, 1.0, cache, 0, np.array(pages, np.int32), 0)
        assert (out == value).all()
    assert log.of("plan prefill") == [2, 2] and log.of("prefill") == [2, 2, 2]


def test_a_plan_that_failed_is_made_again(log: Log) -> None:
    ops = GpuOps(DEVICE)
    cache = ops.kv_cache(CacheShape(1, 4, PAGE, 1, 64, 64))
    few = np.array([3], np.int32)
    for _ in range(2):
        with pytest.raises(ValueError, match="3 positions on 1 pages"):
            ops.attention(normal(1, 2, 64), 1, 1.0, cache, 0, few, 1)


def matrices(seed: int, *shape: int) -> Tensor:
    values = normal(seed, *shape, scale=0.2).cpu().numpy()
    return Tensor("matrix", BY_NAME["F32"], shape, values.reshape(-1).view(np.uint8))


def test_latent_attention_of_512_and_64_features(log: Log) -> None:
    heads, nope, rotated = 2, 16, 64
    shape = CacheShape(1, 4, 16, 1, 512 + rotated, 0)
    rope = Rope(tuple(1 / (i + 1) for i in range(rotated // 2)), True, nope)
    pages, rows = np.array([2, 0, 3], np.int32), []
    norm = Tensor("norm", BY_NAME["F32"], (512,), np.ones(512, np.float32).view(np.uint8))
    for ops in (GpuOps(DEVICE), ReferenceOps()):
        cache = ops.kv_cache(shape)
        k_b = ops.matrix(matrices(1, heads, 512, nope))
        v_b = ops.matrix(matrices(2, heads, 32, 512))
        start = 0
        for n in (18, 1):
            q, kv = normal(3 + n, n, heads * (nope + rotated)), normal(4 + n, n, 512 + rotated)
            ops.latent_append(q, heads, kv, ops.vector(norm), 1e-5, rope, cache, 0, pages, start)
            attn_out = ops.latent_attention(q, heads, 0.1, k_b, v_b, cache, 0, pages, start)
            rows.append(attn_out)
            start += n
    assert error(rows[0], rows[2]) < 3e-3 and error(rows[1], rows[3]) < 3e-3
    assert log.calls == [("plan latent", 18), ("latent", 18)]


@pytest.mark.parametrize(("shape", "heads", "kernel"), [
    (CacheShape(1, 1, 32, 4, 128, 128), 32, "flashinfer"),
    (CacheShape(1, 1, 32, 8, 128, 128), 96, "flashinfer"),
    (CacheShape(1, 1, 32, 1, 576, 0), 128, "flashinfer"),
    (CacheShape(1, 1, 32, 4, 128, 128, "q8"), 32, "Triton (flashinfer has no cache in 8 bits"),
    (CacheShape(1, 1, 32, 1, 576, 0, "q8"), 128, "Triton (flashinfer has no cache in 8 bits"),
    (CacheShape(1, 1, 32, 4, 80, 80), 32, "Triton (flashinfer has no heads of 80 and 80 features)"),
    (CacheShape(1, 1, 32, 1, 288, 0), 8, "Triton (flashinfer has no latent rows of 288)"),
])  # fmt: skip
def test_the_choice_can_be_read(log: Log, shape: CacheShape, heads: int, kernel: str) -> None:
    assert GpuOps(DEVICE).attention_kernel(shape, heads).startswith(kernel)


def test_without_flashinfer_or_where_it_is_switched_off_triton_attends(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = CacheShape(1, 1, 32, 4, 128, 128)
    monkeypatch.setenv("KTCHAT_GPU_FLASH", "0")
    assert GpuOps(DEVICE).attention_kernel(shape, 32) == "Triton (KTCHAT_GPU_FLASH=0)"
    monkeypatch.delenv("KTCHAT_GPU_FLASH")
    why = "flashinfer is not installed"
    monkeypatch.setattr(flash, "available", lambda device: Availability(False, why))
    assert GpuOps(DEVICE).attention_kernel(shape, 32) == f"Triton ({why})"


def test_8_bits_are_read_by_triton(log: Log, tmp_path: Path) -> None:
    path = tiny_model("qwen3", tmp_path)
    wanted = model_rows(path, ReferenceOps(), (1, 1))
    assert 0 < worst(model_rows(path, GpuOps(DEVICE), (1, 1), kv="q8"), wanted) < 1e-3
    assert log.calls == []


def test_plans_go_with_their_cache(log: Log) -> None:
    ops = GpuOps(DEVICE)
    cache = ops.kv_cache(CacheShape(1, 1, PAGE, 1, 64, 64))
    ops.attention(normal(1, 2, 64), 1, 1.0, cache, 0, np.array([0], np.int32), 0)
    assert len(ops._flash._planned) == 1
    del cache
    gc.collect()
    assert len(ops._flash._planned) == 0


def workspace(
    heads: int, kv_heads: int, size: int, new: int, pages: int, page_size: int, processors: int,
    graph: bool, fixed_split_size: int = 0, disable_split_kv: bool = False,
) -> int:  # fmt: skip
    """Bytes that flashinfer's `PrefillPlan` takes of the float workspace for one sequence."""
    packed = new * (heads // kv_heads)
    tile = 16 if packed <= 16 else 64 if packed <= 64 or size >= 256 else 128
    tiles, most = -(-packed // tile), 2 * processors // kv_heads
    chunk = max(128 // page_size, 1)
    if disable_split_kv:
        chunk, split = pages, False
    elif fixed_split_size:
        chunk, split = fixed_split_size, pages > fixed_split_size
    else:
        high = pages
        while chunk < high:
            middle = (chunk + high) // 2
            if tiles * -(-pages // middle) > most:
                chunk = middle + 1
            else:
                high = middle
        split = graph or chunk < pages
    padded = max(most, tiles) if graph else tiles * -(-pages // chunk)
    return heads * padded * tile * (size + 1) * 4 if split else 0


GPUS = (28, 84, 128, 132)
HEADS = ((32, 4, 128), (64, 4, 128), (96, 8, 128), (28, 4, 128), (16, 16, 128), (14, 2, 64), (16, 8, 256))  # fmt: skip


@pytest.mark.parametrize("processors", GPUS)
@pytest.mark.parametrize("shape", HEADS, ids=str)
def test_every_plan_fits_the_workspace(shape: tuple[int, int, int], processors: int) -> None:
    heads, kv_heads, size = shape
    for pages in (1, 4, 17, 300, 4096):
        for new in (2, 7, 9, 33, 64, 500, 512, 2048):
            given = prefill_split(heads, kv_heads, size, [new], pages, processors)
            taken = workspace(*shape, new, pages, 32, processors, False, **given)
            assert taken < WORKSPACE_BYTES, (pages, new, given)


def test_a_plan_is_told_nothing_where_flashinfer_s_choice_fits(log: Log) -> None:
    assert workspace(32, 4, 128, 512, 4096, 32, 132, False) > WORKSPACE_BYTES  # why there is a rule
    assert prefill_split(32, 4, 128, [512], 4096, 132) == {"disable_split_kv": True}
    assert prefill_split(32, 4, 128, [64], 4096, 132) == {"fixed_split_size": 274}
    assert prefill_split(32, 4, 128, [512], 4096, 28) == {}
    assert prefill_split(32, 4, 128, [2048], 4096, 132) == {}
    ops = GpuOps(DEVICE)
    cache = ops.kv_cache(CacheShape(1, 2, PAGE, 1, 64, 64))
    ops.attention(normal(1, 3, 64), 1, 1.0, cache, 0, np.array([0, 1], np.int32), 0)
    assert not {"fixed_split_size", "disable_split_kv"} & log.options[0].keys()
