"""Decoding speed of the CPU kernels at the shapes of Qwen3-30B-A3B: `python -m tests.bench.kernels`.

Prints GB/s of weights streamed beside the memory-read limit, which is measured in every round; the
ratio is taken round by round, because a shared machine's limit drifts. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import mmap
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from engine.evaluation.quantise import quantise
from engine.evaluation.random_rows import RANDOM_TYPES, random_rows
from engine.machine.probes.bandwidth import read_bandwidth
from kernels.cpu import CpuOps
from kernels.ops import CacheShape, Rope, Routing, Tensor
from kernels.quants import BY_NAME

HIDDEN, WIDTH, EXPERTS, TOP_K = 2048, 768, 128, 8
HEADS, KV_HEADS, HEAD = 32, 4, 128
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel call, `run(i)`, which streams `bytes` of weights or cache."""

    name: str
    bytes: int
    run: Callable[[int], object]


@cache
def sample_rows(kind: str, cols: int) -> np.ndarray:
    """The bytes of 64 random rows."""
    sample = np.random.default_rng(1).standard_normal((64, cols)).astype(np.float32) * 0.02
    make = random_rows if kind in RANDOM_TYPES else quantise
    return make(sample, BY_NAME[kind]).reshape(-1)


def weights(kind: str, *shape: int) -> Tensor:
    """Plausible weights in a mapped file, as models are: few quantised rows, repeated."""
    rows = sample_rows(kind, shape[-1])
    size = BY_NAME[kind].row_bytes(shape[-1]) * int(np.prod(shape[:-1]))
    with tempfile.TemporaryFile() as file:
        file.write(np.resize(rows, size).tobytes())
        file.flush()
        data = np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
    return Tensor(kind, BY_NAME[kind], shape, data)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def dense(ops: CpuOps, kind: str, rows: int, copies: int, n: int = 1) -> Case:
    """One product a call, over `copies` matrices in turn so that caches do not help."""
    tensors = [weights(kind, rows, HIDDEN) for _ in range(copies)]
    matrices = [ops.matrix(tensor) for tensor in tensors]
    x = floats(n, HIDDEN)
    return Case(
        f"linear {kind} {rows} x {HIDDEN}, {n} token{'s' * (n > 1)}",
        tensors[0].data.nbytes,
        lambda i: ops.norm_linear(x, None, EPS, [matrices[i % copies]]),
    )


def experts(ops: CpuOps, kind: str, down_kind: str, n: int = 1) -> Case:
    """The fused mixture of experts with random choices."""
    gate, up = (weights(kind, EXPERTS, WIDTH, HIDDEN) for _ in range(2))
    down = weights(down_kind, EXPERTS, HIDDEN, WIDTH)
    matrices = [ops.matrix(tensor) for tensor in (gate, up, down)]
    rng = np.random.default_rng(3)
    ids = [
        np.array([rng.permutation(EXPERTS)[:TOP_K] for _ in range(n)], np.int32) for _ in range(64)
    ]
    x, mix, residual = floats(n, HIDDEN), np.full((n, TOP_K), 0.125, np.float32), floats(n, HIDDEN)
    used = float(np.mean([np.unique(choice).size for choice in ids]))
    one = sum(tensor.data.nbytes for tensor in (gate, up, down)) / EXPERTS
    return Case(
        f"moe {kind}/{down_kind}, {n} token{'s' * (n > 1)}",
        int(one * used),
        lambda i: ops.moe_add(x, ids[i % len(ids)], mix, *matrices, residual),
    )


def attention(ops: CpuOps, length: int) -> Case:
    """Decoding attention over a cache of `length` positions, many layers in turn."""
    layers = max(1, (64 << 20) // (length * KV_HEADS * HEAD * 4))
    pages = np.arange(-(-length // 32), dtype=np.int32)
    cache = ops.kv_cache(CacheShape(layers, len(pages), 32, KV_HEADS, HEAD, HEAD))
    cache.keys[:], cache.values[:] = 1, 1
    q = floats(1, HEADS * HEAD)
    return Case(
        f"attention over {length}",
        length * KV_HEADS * HEAD * 4,
        lambda i: ops.attention(q, HEADS, 0.09, cache, i % layers, pages, length - 1),
    )


def small_ops(ops: CpuOps) -> list[Case]:
    """Ops that stream little: their time is what counts."""
    x, norm = floats(1, HIDDEN), ops.vector(weights("F32", HIDDEN))
    router = ops.matrix(weights("F32", EXPERTS, HIDDEN))
    cache = ops.kv_cache(CacheShape(1, 4, 32, KV_HEADS, HEAD, HEAD))
    rope, routing = Rope(tuple((0.9 ** np.arange(HEAD // 2)).tolist()), False), Routing(TOP_K)
    head_norm = ops.vector(weights("F32", HEAD))
    q, k, v = floats(1, HEADS * HEAD), floats(1, KV_HEADS * HEAD), floats(1, KV_HEADS * HEAD)
    pages = np.arange(4, dtype=np.int32)
    place = (head_norm, head_norm), EPS, rope, cache, 0, pages
    return [
        Case("norm", 0, lambda i: ops.norm(x, norm, EPS)),
        Case(
            "route", EXPERTS * HIDDEN * 4, lambda i: ops.route(x, norm, EPS, router, None, routing)
        ),
        Case("rope and append", 0, lambda i: ops.rope_append(q, k, v, *place, i % 128)),
        attention(ops, 100),
    ]


def measure(case: Case, seconds: float) -> float:
    """Seconds a call: the mean over about `seconds`."""
    calls, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        case.run(calls)
        calls += 1
    return elapsed / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.15, help="a case and round")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--types", default="", metavar="A,B", help="products of these types instead"
    )
    options = parser.parse_args()
    ops = CpuOps(options.threads)
    makers: list[tuple[str, Callable[[], Case]]] = [
        ("linear Q4_K", lambda: dense(ops, "Q4_K", 5120, 40)),
        ("linear Q4_K 4 tokens", lambda: dense(ops, "Q4_K", 5120, 40, n=4)),
        ("linear Q6_K", lambda: dense(ops, "Q6_K", 32000, 4)),
        ("linear Q8_0", lambda: dense(ops, "Q8_0", 5120, 20)),
        ("linear F16", lambda: dense(ops, "F16", 5120, 10)),
        ("moe Q4_K/Q4_K", lambda: experts(ops, "Q4_K", "Q4_K")),
        ("moe Q4_K/Q6_K", lambda: experts(ops, "Q4_K", "Q6_K")),
        ("moe Q4_K/Q4_K 4 tokens", lambda: experts(ops, "Q4_K", "Q4_K", n=4)),
        ("moe Q4_K/Q4_K prefill", lambda: experts(ops, "Q4_K", "Q4_K", n=512)),
        ("attention 4096", lambda: attention(ops, 4096)),
    ]
    if options.types:
        makers = [
            (
                f"linear {kind}",
                lambda kind=kind, n=n: dense(ops, kind, 5120, 20 if n == 1 else 2, n),
            )
            for kind in options.types.split(",")
            for n in (1, 512)
        ]
    cases = [make() for name, make in makers if options.only in name]
    if not options.types:
        cases += [case for case in small_ops(ops) if options.only in case.name]
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    ratios: dict[str, list[float]] = {case.name: [] for case in cases}
    limits = []
    for _ in range(options.rounds):
        for case in cases:
            limit = read_bandwidth(ops.threads, 0.1, 256 << 20)
            limits.append(limit)
            taken = measure(case, options.seconds)
            times[case.name].append(taken)
            ratios[case.name].append(case.bytes / taken / 1e9 / limit)
    print(f"{ops.threads} threads, {ops.isa}; memory read {statistics.median(limits):.1f} GB/s")
    for case in cases:
        taken = statistics.median(times[case.name])
        speed = f"{case.bytes / taken / 1e9:6.1f} GB/s, {statistics.median(ratios[case.name]):5.1%}"
        print(f"{case.name:34} {taken * 1e6:9.1f} us  {speed if case.bytes else ''}")
    ops.close()
    result = {name: statistics.median(values) for name, values in times.items()}
    print(json.dumps({"limit_gb_s": statistics.median(limits), "seconds": result}))


if __name__ == "__main__":
    main()
