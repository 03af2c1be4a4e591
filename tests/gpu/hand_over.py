"""What a captured pass pays beside its kernels, in microseconds: `python -m tests.gpu.hand_over NAME`.

flags: the stream raises a flag, waits for the host's and lowers it. functions: it calls one on the host. nodes: a
chain of kernels that do nothing to speak of; and of ours, that begin early where the device can, and that do not.
copies: three to the host against one.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from kernels.gpu.dependents import early
from kernels.gpu.graph.answers import add
from kernels.gpu.graph.capture import capturing
from kernels.gpu.graph.driver import Driver
from kernels.gpu.graph.host_sync import pinned
from tests.gpu.children import tell

STEPS, REPLAYS = 48, 12
NODES = 1000
HIDDEN, TOP_K = 2048, 8
STUCK = 5.0
"""Seconds after which a flag is taken not to come."""

CUDA = torch.device("cuda", 0)


def flags() -> None:
    """Flags in pinned memory, answered by a loop of Python, whose looks take some 0.2 us."""
    driver = Driver()
    submitted, completed = (pinned((STEPS,), np.int32, CUDA) for _ in range(2))

    def step(n: int, stream: int) -> None:
        driver.write(stream, submitted[n:].ctypes.data, 1)
        driver.wait(stream, completed[n:].ctypes.data, 1)
        driver.write(stream, completed[n:].ctypes.data, 0)

    def answer() -> None:
        end = time.perf_counter() + STUCK
        for n in range(STEPS):
            while not submitted[n]:
                if time.perf_counter() > end:
                    completed[:] = 1  # the stream must not wait for ever
                    raise TimeoutError(f"flag {n} was not raised")
            submitted[n] = 0
            completed[n] = 1

    tell({"name": "flags", "us": timed(step, answer)})


def functions() -> None:
    """Host functions that do nothing: getpid, which minds no argument."""
    address = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value or 0
    driver = Driver()
    tell({"name": "functions", "us": timed(lambda n, stream: driver.call(stream, address, 0))})


def nodes() -> None:
    """A small kernel after another."""
    x = torch.zeros(32, device=CUDA)
    each = timed(lambda n, stream: x.add_(1.0), steps=NODES)
    tell({"name": "nodes", "us": each, "of": NODES})
    row, more = (torch.zeros(1, HIDDEN, device=CUDA) for _ in range(2))
    for setting in "01":
        os.environ["KTCHAT_GPU_DEPENDENTS"] = setting
        early.cache_clear()
        each = timed(lambda n, stream: add(row, more), steps=NODES)
        tell({"name": "nodes of ours", "early": bool(early(CUDA)), "us": each, "of": NODES})


def copies() -> None:
    """A request's activations, ids and weights, apart and together."""
    sizes = {"three copies": (HIDDEN, TOP_K, TOP_K), "one copy": (HIDDEN + 2 * TOP_K,)}
    for name, floats in sizes.items():
        pairs = [(torch.zeros(n, device=CUDA), torch.zeros(n, pin_memory=True)) for n in floats]

        def step(n: int, stream: int, pairs: Any = pairs) -> None:
            for source, target in pairs:
                target.copy_(source, non_blocking=True)

        tell({"name": name, "us": timed(step)})


def timed(
    step: Callable[[int, int], object], answer: Callable[[], None] | None = None, steps: int = STEPS
) -> float:
    """Microseconds of one of so many captured steps, the median of replays. `answer` is the host's part."""
    graph = torch.cuda.CUDAGraph()
    step_stream = torch.cuda.Stream(CUDA)
    if answer is None:
        with torch.cuda.stream(step_stream):
            step(0, step_stream.cuda_stream)  # loads kernels
        torch.cuda.synchronize()
    with capturing(graph, step_stream):
        stream = torch.cuda.current_stream(CUDA).cuda_stream
        for n in range(steps):
            step(n, stream)
    seconds = []
    for _ in range(REPLAYS):
        begin = time.perf_counter()
        graph.replay()
        if answer is not None:
            answer()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return round(statistics.median(seconds[2:]) / steps * 1e6, 3)


if __name__ == "__main__":
    {"flags": flags, "functions": functions, "nodes": nodes, "copies": copies}[sys.argv[1]]()
