"""Ops on the CPU are given up when a flag is raised, wherever they are, and nothing of it stays."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from engine.runtimes.base import CancelFlag
from kernels.cancelling import CancelledError
from kernels.cpu import CpuOps
from tests.kernels.cpu_cases import normal
from tests.kernels.test_cpu_threads import HIDDEN, Layer
from tests.support.clock import within


def test_a_raised_flag_ends_an_op_and_a_lowered_one_leaves_no_trace() -> None:
    ops, flag = CpuOps(2), CancelFlag()
    layer = Layer(ops)
    x = normal(20, 64, HIDDEN)
    expected = layer.forward(x, 0)
    ops.heed(flag)
    assert np.array_equal(layer.forward(x, 0), expected)
    flag.set()
    with pytest.raises(CancelledError):
        layer.forward(x, 0)
    ops.heed(None)
    assert np.array_equal(layer.forward(x, 0), expected)  # it is not looked at any more
    flag.clear()
    ops.heed(flag)
    assert np.array_equal(layer.forward(x, 0), expected)
    ops.close()


def test_flags_at_any_moment_break_nothing() -> None:
    ops, flag = CpuOps(2), CancelFlag()
    layer = Layer(ops)
    x = normal(20, 64, HIDDEN)
    expected = layer.forward(x, 0)
    ops.heed(flag)
    given_up = 0
    begin = time.perf_counter()
    layer.forward(x, 0)
    whole = time.perf_counter() - begin
    for trial in range(60):
        raising = threading.Timer(whole * trial / 40, flag.set)
        raising.start()
        if trial == 0:  # surely in time, however slow the hour
            raising.join()
        try:
            assert np.array_equal(layer.forward(x, 0), expected)
        except CancelledError:
            given_up += 1
        raising.join()
        flag.clear()
        assert np.array_equal(layer.forward(x, 0), expected)
    assert given_up
    ops.close()


@pytest.mark.xdist_group("clock")
def test_one_long_op_is_given_up_soon() -> None:
    ops, flag = CpuOps(2), CancelFlag()
    layer = Layer(ops)
    x = normal(21, 40_000, HIDDEN)
    ids = np.tile(np.arange(4, dtype=np.int32), (len(x), 1))
    weights = np.full((len(x), 4), 0.25, np.float32)
    ops.heed(flag)
    promise = within(0.3)

    def raise_it() -> None:
        promise.begin()
        flag.set()

    raising = threading.Timer(0.1, raise_it)
    raising.start()
    with pytest.raises(CancelledError):
        while True:  # on a fast machine the first is over
            ops.moe_add(x, ids, weights, layer.gate, layer.up, layer.down, x.copy())
    promise.check()
    raising.join()
    ops.close()
