"""A device's passes appear at their times on the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from engine.evaluation.trace import Trace
from kernels.gpu.graph.pass_times import Marks, PassTimes
from kernels.timing import Stamps
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU

LAUNCH = 4_000
"""Nanoseconds from a call on the host to its work on the simulated device."""


class Told:
    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []

    def ops(self, names: Sequence[str], layers: Sequence[int | None], stamps: Stamps) -> None:
        assert list(names) == ["captured pass"]
        start, end = map(int, stamps)
        self.spans.append((start, end))


class Device:
    """Events on a clock that began elsewhere and runs too fast or too slow."""

    def __init__(self, drift: float) -> None:
        self.now = 1_000_000_000  # of the host
        self.busy_until = 0
        self._drift = drift
        device = self

        class Event:
            def __init__(self, enable_timing: bool, external: bool) -> None:
                assert enable_timing
                self.external = external

            def record(self) -> None:
                assert not self.external, "it belongs to a capture"
                self.at = max(device.now + LAUNCH, device.busy_until)

            def synchronize(self) -> None:
                device.now = max(device.now, self.at) + LAUNCH

            def elapsed_time(self, other: Event) -> float:
                assert device.now >= max(self.at, other.at), "not done yet"
                return (other.at - self.at) * (1 + device._drift) / 1e6

        self.event = Event

    def replay(self, marks: Marks, duration: int) -> tuple[int, int]:
        start = max(self.now + LAUNCH, self.busy_until)
        self.busy_until = start + duration
        marks.begun.at, marks.ended.at = start, self.busy_until
        return start, self.busy_until

    def synchronize(self) -> None:
        self.now = max(self.now, self.busy_until)


@pytest.mark.parametrize("drift", [0.0, 1e-3, -1e-3])
def test_passes_are_where_the_work_was(drift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(drift)
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr(torch.cuda, "synchronize", device.synchronize)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: device.now)
    marks, told = Marks(), Told()
    times = PassTimes(marks, told)
    wanted = []
    for number, duration in enumerate((50_000, 2_000_000, 7_000)):
        device.now += 100_000_000 * number
        times.launch()
        wanted.append(device.replay(marks, duration))
    assert told.spans == [], "nobody waits for it meanwhile"
    times.tell()
    assert np.abs(np.array(told.spans) - np.array(wanted)).max() <= 10
    times.tell()
    assert len(told.spans) == 3, "each is told once"


@pytest.mark.skipif(not ON_GPU, reason="needs KTCHAT_GPU_TESTS=1 and a CUDA device")
@pytest.mark.gpu
def test_a_real_pass_lies_between_its_launch_and_its_end() -> None:
    from kernels.gpu.gpu_ops import GpuOps
    from kernels.ops import Tensor
    from kernels.quants import BY_NAME

    ops = GpuOps(DEVICE)
    data = np.ones((4, 4096), np.float32).view(np.uint8).reshape(-1)
    table = ops.table(Tensor("token_embd.weight", BY_NAME["F32"], (4, 4096), data))

    def forward(tokens: Any, pages: Any, start: int) -> Any:
        x = ops.embed(table, tokens)
        for _ in range(2000):
            x = x * 1.0
        return x

    run: Callable[..., Any] = ops.record(forward)
    arguments = np.array([1], np.int32), np.array([0], np.int32), 0
    for _ in range(2):
        ops.to_numpy(run(*arguments))
    trace, calls = Trace(), []
    ops.watch(trace)
    for _ in range(3):
        begin = time.perf_counter_ns()
        ops.to_numpy(run(*arguments))
        calls.append((begin, time.perf_counter_ns()))
    ops.watch(None)
    ops.to_numpy(run(*arguments))
    spans = trace.spans("device")
    assert len(spans) == 3
    for span, (begin, done) in zip(spans, calls, strict=True):
        assert begin - 50_000 < span.start < span.end < done + 50_000
        assert span.end - span.start > 0.3 * (done - begin)
