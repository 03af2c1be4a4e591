"""The thread pool: determinism, idleness, several instances, forked processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kernels.cpu import CpuOps
from kernels.cpu.cores import physical_cores
from kernels.ops import CacheShape, Floats, Rope, Routing
from tests.kernels.cpu_cases import ISAS, cpu_ops, normal, tensor

EPS = 1e-6
HIDDEN, WIDTH, EXPERTS, HEADS, KV_HEADS, HEAD = 512, 256, 16, 8, 2, 64


class Layer:
    """One layer's ops, big enough for many chunks, over weights of several types."""

    def __init__(self, ops: CpuOps) -> None:
        self.ops = ops
        self.norm = ops.vector(tensor(normal(1, HIDDEN)))
        shapes = ((HEADS * HEAD, "Q4_K"), (KV_HEADS * HEAD, "F16"), (KV_HEADS * HEAD, "Q6_K"))
        self.qkv = [
            ops.matrix(tensor(normal(2 + i, rows, HIDDEN, scale=0.05), kind))
            for i, (rows, kind) in enumerate(shapes)
        ]
        self.output = ops.matrix(tensor(normal(5, HIDDEN, HEADS * HEAD, scale=0.05), "F32"))
        self.router = ops.matrix(tensor(normal(6, EXPERTS, HIDDEN)))
        self.gate, self.up = (
            ops.matrix(tensor(normal(seed, EXPERTS, WIDTH, HIDDEN, scale=0.05), "Q8_0"))
            for seed in (7, 8)
        )
        self.down = ops.matrix(tensor(normal(9, EXPERTS, HIDDEN, WIDTH, scale=0.05), "Q4_0"))
        self.cache = ops.kv_cache(CacheShape(1, 20, 32, KV_HEADS, HEAD, HEAD))
        self.pages = np.arange(20, dtype=np.int32)
        self.rope = Rope(tuple((0.7 ** np.arange(HEAD // 2)).tolist()), False)
        self.routing = Routing(4)

    def forward(self, x: Floats, start: int) -> Floats:
        ops, x = self.ops, x.copy()
        q, k, v = ops.norm_linear(x, self.norm, EPS, self.qkv)
        place = (self.cache, 0, self.pages)
        ops.rope_append(q, k, v, None, EPS, self.rope, *place, start)
        ops.linear_add(ops.attention(q, HEADS, 0.125, *place, start), self.output, x)
        normed, ids, weights = ops.route(x, self.norm, EPS, self.router, None, self.routing)
        ops.moe_add(normed, ids, weights, self.gate, self.up, self.down, x)
        return x


def run(ops: CpuOps) -> list[Floats]:
    """Prefill, a short chunk, single tokens."""
    layer = Layer(ops)
    starts = (0, 300, 305, 306)
    counts = (300, 5, 1, 1)
    return [
        layer.forward(normal(20 + start, n, HIDDEN), start)
        for start, n in zip(starts, counts, strict=True)
    ]


@pytest.mark.parametrize("isa", ISAS)
def test_results_do_not_depend_on_threads_or_time(isa: str) -> None:
    first = run(cpu_ops(1, isa))
    for threads in (1, 2, 3):
        for ours, theirs in zip(run(cpu_ops(threads, isa)), first, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_instruction_sets_agree() -> None:
    for outs in zip(*(run(cpu_ops(2, isa)) for isa in ISAS), strict=True):
        for out in outs[1:]:
            np.testing.assert_allclose(out, outs[0], atol=1e-2 * float(np.abs(outs[0]).max()))


def affinities(ops: Callable[[], CpuOps], pinned: bool = True) -> list[set[int]]:
    """The CPUs that each thread started by `ops` may use."""
    tasks = Path("/proc/self/task")
    before = {task.name for task in tasks.iterdir()}
    kept = ops()
    new = {task.name for task in tasks.iterdir()} - before
    mine, end = os.sched_getaffinity(0), time.monotonic() + 60
    while True:  # a thread pins itself
        allowed = [os.sched_getaffinity(int(name)) for name in new]
        if not pinned or all(cores != mine for cores in allowed) or time.monotonic() > end:
            break
        time.sleep(0.01)
    kept.close()
    return allowed


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_pinned_threads_have_a_core_each_and_the_caller_has_all() -> None:
    cores, mine = physical_cores(), os.sched_getaffinity(0)
    pinned = affinities(lambda: CpuOps(len(cores), pin=True))
    assert sorted(map(list, pinned)) == [[core] for core in cores[1:]]
    assert os.sched_getaffinity(0) == mine
    crowded = affinities(lambda: CpuOps(len(cores) + 1, pin=True), pinned=False)
    assert crowded == [mine] * len(cores)


def test_idle_threads_use_no_cpu() -> None:
    ops = CpuOps(3)
    x, weight = normal(1, 1, HIDDEN), ops.matrix(tensor(normal(2, 4096, HIDDEN)))
    ops.norm_linear(x, None, EPS, [weight])
    spent = []
    while not spent or (spent[-1] >= 0.02 and len(spent) < 100):  # they may just be going to sleep
        before = time.process_time()
        time.sleep(0.5)
        spent.append(time.process_time() - before)
    assert spent[-1] < 0.02
    ops.close()


def test_sleeping_threads_wake_up() -> None:
    ops = CpuOps(2)
    x, weight = normal(1, 1, HIDDEN), ops.matrix(tensor(normal(2, 4096, HIDDEN)))
    (first,) = ops.norm_linear(x, None, EPS, [weight])
    for _ in range(20):
        time.sleep(0.002)
        (again,) = ops.norm_linear(x, None, EPS, [weight])
        np.testing.assert_array_equal(again, first)
    ops.close()


def test_two_instances_at_once_do_not_wait_for_each_other() -> None:
    wanted = run(cpu_ops(2))
    results: dict[int, list[Floats]] = {}

    def work(index: int) -> None:
        ops = CpuOps(2)
        for _ in range(3):
            results[index] = run(ops)
        ops.close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for index in range(2):
        for ours, theirs in zip(results[index], wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_forked_process_computes_alone() -> None:
    ops = CpuOps(3)
    x, weight = normal(1, 1, HIDDEN), ops.matrix(tensor(normal(2, 4096, HIDDEN)))
    (wanted,) = ops.norm_linear(x, None, EPS, [weight])
    child = os.fork()
    if child == 0:  # no pytest in here: leave at once, whatever happens
        code = 1
        try:
            (got,) = ops.norm_linear(x, None, EPS, [weight])
            ops.close()
            code = 0 if np.array_equal(got, wanted) else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        raise AssertionError("the forked process hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    ops.close()


def test_many_short_lives() -> None:
    for threads in (1, 2, 5):
        for _ in range(20):
            ops = CpuOps(threads)
            ops.norm(normal(1, 3, 8), ops.vector(tensor(normal(2, 8))), EPS)
            ops.close()
            ops.close()
