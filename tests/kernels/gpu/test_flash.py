"""flashinfer's index arithmetic on every machine; its kernels where a GPU and flashinfer are there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.grouped import attention
from kernels.gpu.attention.kv_cache import Rows
from kernels.gpu.attention.latent import latent_attention
from kernels.gpu.attention.plan import plan_attention, plan_latent_attention
from kernels.gpu.attention.scratch import Scratch
from kernels.gpu.flashinfer import wrappers as flash
from kernels.gpu.flashinfer.indices import IndexBuffers, page_index, query_offsets
from kernels.gpu.flashinfer.shapes import supports
from kernels.gpu.flashinfer.workspace import WORKSPACE_BYTES
from kernels.gpu.flashinfer.wrappers import FlashLatent, FlashPrefill, FlashShape
from tests.kernels.gpu import fake_flashinfer
from tests.kernels.gpu.fake_flashinfer import Log
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU, error, normal, unset

PAGE = 16
SHAPE = FlashShape(10, 2, 64, 64, PAGE, 0.125)
LATENT = FlashShape(16, 1, 576, 512, PAGE, 0.07)
LENGTHS = (1, 16, 17, 5, 40, 33, 32, 48)
MAX_PAGES = 3


def tables(lengths: tuple[int, ...]) -> list[Any]:
    """Three pages for each sequence, no two alike."""
    order = np.random.default_rng(0).permutation(len(lengths) * MAX_PAGES).astype(np.int32)
    return list(order.reshape(len(lengths), MAX_PAGES))


def test_the_index_counts_lengths_and_not_positions() -> None:
    pages = [np.array(row, np.int32) for row in ([7, 1, 2], [4, 0, 9], [3, 8, 5])]
    index = page_index((1, 16, 33), pages, PAGE)
    assert index.indptr.tolist() == [0, 1, 2, 5]
    assert index.indices.tolist() == [7, 4, 3, 8, 5]
    assert index.last.tolist() == [1, 16, 1]
    assert index.lengths.tolist() == [1, 16, 33]
    assert {part.dtype for part in (index.indptr, index.indices, index.last)} == {torch.int32}


@pytest.mark.parametrize("lengths", [(), (0,), (-1,), (49,), (3, 4)])
def test_lengths_that_do_not_fit_their_pages_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"pages|page lists"):
        page_index(lengths, tables((1,)), PAGE)


def test_queries_are_the_last_positions() -> None:
    assert query_offsets((2, 1, 5), (2, 9, 8)).tolist() == [0, 2, 3, 8]
    for queries in ((3, 1, 1), (0, 1, 1), (1, 1)):
        with pytest.raises(ValueError, match="new tokens"):
            query_offsets(queries, (2, 9, 8))


def test_buffers_belong_to_the_plan_and_views_share_them() -> None:
    buffers = IndexBuffers.allocate(8, MAX_PAGES, "cpu")
    for sequences in range(1, 9):
        part = buffers.first(sequences)
        assert [len(x) for x in (part.queries, part.indptr, part.last, part.lengths)] == [
            sequences + 1, sequences + 1, sequences, sequences,
        ]  # fmt: skip
        assert len(part.indices) == 8 * MAX_PAGES
        assert part.indptr.data_ptr() == buffers.indptr.data_ptr()
    for sequences in (0, 9):
        with pytest.raises(ValueError, match="in buffers for 8"):
            buffers.first(sequences)


STAND_IN = fake_flashinfer.module(Log())


@pytest.mark.parametrize("sequences", range(1, 9))
def test_every_batch_size_plans_into_the_same_buffers(sequences: int) -> None:
    buffers = IndexBuffers.allocate(8, MAX_PAGES, "cpu")
    latent = FlashLatent(STAND_IN, LATENT, buffers, torch.empty(1), graph=True)
    lengths, pages = LENGTHS[:sequences], tables(LENGTHS)[:sequences]
    index = page_index(lengths, pages, PAGE)
    latent.plan((1,) * sequences, lengths, pages)
    assert torch.equal(buffers.indptr[: sequences + 1], index.indptr)
    assert torch.equal(buffers.indices[: len(index.indices)], index.indices)
    assert torch.equal(buffers.queries[: sequences + 1], torch.arange(sequences + 1))
    assert torch.equal(buffers.lengths[:sequences], index.lengths)


def test_a_buffer_of_another_length_would_fail_as_it_once_did() -> None:
    whole = IndexBuffers.allocate(2, MAX_PAGES, "cpu")
    wrapper = STAND_IN.mla.BatchMLAPagedAttentionWrapper(
        None, True, qo_indptr=torch.zeros(4, dtype=torch.int32)
    )
    with pytest.raises(RuntimeError, match=r"tensor a \(4\) must match the size of tensor b \(5\)"):
        wrapper.plan(torch.arange(5), None, torch.arange(1), torch.arange(1))
    latent = FlashLatent(STAND_IN, LATENT, whole, torch.empty(1), graph=True)
    with pytest.raises(ValueError, match="in buffers for"):
        latent.plan((1,) * 3, LENGTHS[:3], tables(LENGTHS)[:3])


def test_more_pages_than_the_buffers_hold_are_refused() -> None:
    latent = FlashLatent(
        STAND_IN, LATENT, IndexBuffers.allocate(1, 2, "cpu"), torch.empty(1), graph=True
    )
    with pytest.raises(ValueError, match="3 pages in buffers for 2"):
        latent.plan((1,), (48,), tables((1,)))


def test_heads_that_flashinfer_lacks_are_known() -> None:
    assert supports(64, 64) and supports(128, 128) and supports(256, 256)
    assert not any(supports(*size) for size in ((80, 80), (96, 96), (192, 192), (192, 128)))
    with pytest.raises(ValueError, match="512 \\+ 64"):
        FlashLatent(STAND_IN, SHAPE, IndexBuffers.allocate(1, 1, "cpu"), torch.empty(1), graph=True)


@pytest.fixture
def device_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend to a GPU of some compute capability, and to packages that are installed."""

    def pretend(capability: tuple[int, int] | None, *packages: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: SimpleNamespace() if name in packages else None
        )
        monkeypatch.setattr(flash, "_compiler", lambda: "nvcc" in packages)

    return pretend


@pytest.mark.parametrize(("capability", "packages", "reason"), [
    (None, ("flashinfer",), "torch sees no CUDA device"),
    ((7, 5), ("flashinfer", "nvcc"), "compute capability 7.5 is below 8.0"),
    ((8, 9), ("nvcc",), "flashinfer is not installed"),
    ((8, 9), ("flashinfer",), "neither nvcc nor flashinfer-jit-cache"),
])  # fmt: skip
def test_why_flashinfer_cannot_be_used(
    device_of: Any, capability: Any, packages: Any, reason: str
) -> None:
    device_of(capability, *packages)
    answer = flash.available()
    assert not answer.usable and reason in answer.reason


def test_a_broken_installation_is_a_reason(device_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("libcudart.so: cannot open shared object file")

    device_of((9, 0), "flashinfer", "nvcc")
    monkeypatch.setattr(flash, "load", broken)
    assert flash.available().reason.startswith("flashinfer cannot be imported: libcudart")
    monkeypatch.setattr(flash, "load", lambda: None)
    assert flash.available() == flash.Availability(True)


needs_flashinfer = pytest.mark.skipif(
    not (ON_GPU and flash.available().usable), reason="needs a GPU and flashinfer"
)


def half_cache(heads: int, size: int, seed: int) -> Any:
    return normal(seed, len(LENGTHS) * MAX_PAGES, PAGE, heads, size).half()


@pytest.mark.gpu
@needs_flashinfer
def test_prefill_equals_ours() -> None:
    keys, values, queries = half_cache(2, 64, 1), half_cache(2, 64, 2), (1, 16, 3, 5, 9, 2, 1, 30)
    q, out = (
        normal(3, sum(queries), 10, 64).half(),
        unset(sum(queries), 10, 64, dtype=torch.float16),
    )
    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=DEVICE)
    prefill = FlashPrefill(flash.load(), SHAPE, workspace, 132)
    prefill.plan(queries, LENGTHS, tables(LENGTHS))
    prefill.run(q, keys, values, out)
    assert error(out, ours(q, keys, values, LENGTHS, queries, tables(LENGTHS))) < 3e-3


def ours(q: Any, keys: Any, values: Any, lengths: Any, queries: Any, pages: Any) -> Any:
    batch = Batch.allocate(len(lengths), MAX_PAGES, DEVICE)
    batch.write(lengths, queries, pages, PAGE)
    plan = plan_attention(len(lengths), max(queries), 10, 2, 64, 64, 48, 4)
    out = unset(len(q), 10, 64)
    attention(
        q,
        Rows(keys),
        Rows(values),
        batch,
        SHAPE.scale,
        plan,
        Scratch.allocate(plan, len(q), DEVICE),
        out,
    )
    return out


@pytest.mark.gpu
@needs_flashinfer
@pytest.mark.parametrize("sequences", range(1, 9))
def test_latent_decode_under_a_graph_equals_ours(sequences: int) -> None:
    cache, n = half_cache(1, 576, 1), sequences
    q, tail = normal(2, n, 16, 512).half(), normal(3, n, 16, 64).half()
    out, wanted = unset(n, 16, 512, dtype=torch.float16), unset(n, 16, 512)
    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=DEVICE)
    buffers, lengths, pages = (
        IndexBuffers.allocate(8, MAX_PAGES, DEVICE),
        LENGTHS[:n],
        tables(LENGTHS)[:n],
    )
    latent = FlashLatent(flash.load(), LATENT, buffers, workspace, graph=True)
    latent.plan((1,) * n, lengths, pages)
    latent.run(q, tail, cache, out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        latent.run(q, tail, cache, out)
    out.fill_(0)
    graph.replay()
    batch = Batch.allocate(n, MAX_PAGES, DEVICE)
    batch.write(lengths, (1,) * n, pages, PAGE)
    plan = plan_latent_attention(n, 1, 16, 512, 64, 48, 4)
    latent_attention(
        q, tail, Rows(cache), batch, LATENT.scale, plan, Scratch.allocate(plan, n, DEVICE), wanted
    )
    assert error(out, wanted) < 3e-3
