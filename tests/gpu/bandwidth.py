"""GB/s at which decoding's kernels read: `python -m tests.gpu.bandwidth NAME`, a type, "attention" or "copy".

Every launch reads buffers of its own, many times the L2 cache together, with random bits: memory that is all
zeros is read faster. Launches are captured, so that Python costs nothing.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from kernels.gpu.graph.capture import capturing
from tests.gpu.children import tell

BYTES = 512 << 20
"""Of all buffers together: eight times the largest L2 cache."""
ROUNDS = 8
HIDDEN, INNER, EXPERTS, TOP_K = 2048, 768, 128, 8
CUDA = torch.device("cuda", 0)


def copy(size: int = 1 << 30) -> float:
    """GB/s that the device moves in a copy, reads and writes counted."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=CUDA)
    target = torch.empty_like(source)
    return rate([lambda: target.copy_(source)], 2 * size)


def products(name: str) -> None:
    """Of one row, dense and through the experts of a token."""
    from kernels.gpu.moe import experts
    from kernels.gpu.quant import gemv
    from kernels.quants import BY_NAME

    def weights(*shape: int) -> Any:
        return random_weight(BY_NAME[name], shape)

    x = torch.randn(1, HIDDEN, device=CUDA)
    for rows in (HIDDEN, 4 * HIDDEN):
        some = fill(lambda rows=rows: weights(rows, HIDDEN))
        calls = [lambda w=w: gemv.gemv(x, [w]) for w in some]
        tell({"name": f"{rows} rows", "gb_s": rate(calls, sum(w.nbytes for w in some))})
        tell({"name": f"{rows} rows in L2", "gb_s": rate(calls[:1] * 64, 64 * some[0].nbytes)})
        del some, calls
        torch.cuda.empty_cache()
    layers = fill(lambda: (*(weights(EXPERTS, INNER, HIDDEN) for _ in "gu"), weights(EXPERTS, HIDDEN, INNER)))  # fmt: skip
    scales, residual = torch.ones(1, TOP_K, device=CUDA), torch.zeros(1, HIDDEN, device=CUDA)
    calls = []
    for number in range(max(len(layers), 16)):
        ids = torch.randperm(EXPERTS, device=CUDA)[None, :TOP_K].int()
        stacks = layers[number % len(layers)]
        calls.append(lambda i=ids, s=stacks: experts.moe_add(x, i, scales, s, residual))
    read = sum(weight.nbytes for weight in layers[0]) * TOP_K // EXPERTS * len(calls)
    tell({"name": "experts of a token", "gb_s": rate(calls, read)})


def attention(length: int = 32768, heads: int = 32, kv_heads: int = 4, size: int = 128) -> None:
    """Of a token over a long context, merge included."""
    from kernels.gpu.attention.batch import Batch
    from kernels.gpu.attention.grouped import attention as attend
    from kernels.gpu.attention.kv_cache import Rows
    from kernels.gpu.attention.plan import plan_attention
    from kernels.gpu.attention.scratch import Scratch
    from kernels.gpu.quant.gemv import multiprocessors

    page = 32
    pages = length // page

    def cache() -> Any:
        return Rows(torch.randn(pages, page, kv_heads, size, device=CUDA).half())

    layers = fill(lambda: (cache(), cache()))
    batch = Batch.allocate(1, pages, CUDA)
    batch.write([length], [1], [torch.arange(pages).int().numpy()], page)
    plan = plan_attention(1, 1, heads, kv_heads, size, size, length, multiprocessors(CUDA))
    scratch = Scratch.allocate(plan, 1, CUDA)
    q, out = (torch.randn(1, heads, size, device=CUDA) for _ in range(2))
    calls = [lambda kv=kv: attend(q, *kv, batch, 0.1, plan, scratch, out) for kv in layers]
    read = len(layers) * 2 * length * kv_heads * size * 2
    tell({"name": f"attention over {length}", "splits": plan.splits, "gb_s": rate(calls, read)})


def random_weight(kind: Any, shape: tuple[int, ...]) -> Any:
    """Packed weights of random bits: no number in them means anything."""
    from kernels.gpu.quant.weight import PackedWeight

    weight = PackedWeight.empty(kind, shape, CUDA)
    weight.data.random_(0, 256)
    return weight


def fill(make: Callable[[], Any]) -> list[Any]:
    """As many as fill `BYTES`, and two at least."""
    made, taken = [], 0
    while len(made) < 2 or taken < BYTES:
        before = torch.cuda.memory_allocated()
        made.append(make())
        taken += torch.cuda.memory_allocated() - before
    return made


def rate(calls: Sequence[Callable[[], object]], size: int) -> float:
    """GB/s of calls that move `size` bytes together, captured; the median of rounds."""
    for call in calls[:2]:
        call()  # compiles
    torch.cuda.synchronize()
    graph: Any = torch.cuda.CUDAGraph()
    with capturing(graph, torch.cuda.Stream(CUDA)):
        for call in calls:
            call()
    seconds = []
    event: Any = torch.cuda.Event
    for _ in range(ROUNDS):
        start, end = (event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return round(size / statistics.median(seconds[2:]) / 1e9, 1)


if __name__ == "__main__":
    if sys.argv[1] == "attention":
        attention()
    elif sys.argv[1] == "copy":
        tell({"name": "copy", "gb_s": copy()})
    else:
        products(sys.argv[1])
