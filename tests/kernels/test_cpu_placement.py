"""Weights are packed by the worker that will read them, so that first touch places them on its memory node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.cpu import CpuOps
from kernels.cpu.buffers import Weight
from kernels.cpu.native import load
from tests.kernels.cpu_cases import normal, tensor

THREADS = 4
TILE = 32
"""Rows that are packed in halves and read together."""


def owners(ops: CpuOps) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(matrix, index, begin, end, owner, read) of all that was packed and read since they are kept."""
    count = load().kt_owners(ops._context, None, 0)
    out = np.zeros((count, 6), np.int64)
    load().kt_owners(ops._context, out.ctypes.data, count)
    return out


def by_row(entries: np.ndarray[Any, Any], weight: Weight, index: int, read: bool) -> Any:
    """The owner of each row of a matrix; -1: nobody."""
    rows = np.full(weight.rows, -1)
    for matrix, of, begin, end, owner, is_read in entries:
        if (matrix, of, is_read) == (weight.pointer, index, read):
            rows[begin:end] = owner
    return rows


def check(entries: np.ndarray[Any, Any], weight: Weight, index: int) -> None:
    packed, read = (by_row(entries, weight, index, reading) for reading in (False, True))
    assert set(packed) == set(range(THREADS))
    differing = np.flatnonzero((packed != read) & (read >= 0))
    edges = np.arange(1, THREADS) * weight.rows / THREADS
    assert (read >= 0).all()
    assert all(np.abs(edges - row).min() <= TILE for row in differing)


def dense(ops: CpuOps, n: int) -> list[tuple[Weight, int]]:
    weights = [
        ops.matrix(tensor(normal(i, rows, 512), "Q4_K")) for i, rows in enumerate((4096, 1536))
    ]
    ops.norm_linear(normal(5, n, 512), None, 1e-6, weights)
    return [(weight, 0) for weight in weights]


def added(ops: CpuOps, n: int) -> list[tuple[Weight, int]]:
    weight = ops.matrix(tensor(normal(1, 2048, 512), "Q8_0"))
    ops.linear_add(normal(5, n, 512), weight, normal(6, n, 2048))
    return [(weight, 0)]


def experts(ops: CpuOps, n: int) -> list[tuple[Weight, int]]:
    shapes = ((6, 2048, 512), (6, 2048, 512), (6, 512 * 4, 2048))
    gate, up, down = (
        ops.matrix(tensor(normal(i, *s, scale=0.1), "Q4_K")) for i, s in enumerate(shapes)
    )
    ids = np.array([[5, 1, 3]] * n, np.int32)
    ops.moe_add(
        normal(5, n, 512), ids, np.full((n, 3), 0.3, np.float32), gate, up, down, normal(6, n, 2048)
    )
    return [(weight, expert) for weight in (gate, up, down) for expert in (1, 3, 5)]


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize("case", [dense, added, experts])
def test_who_packs_rows_reads_them(case: Callable[[CpuOps, int], Any], n: int) -> None:
    ops = CpuOps(THREADS)
    try:
        load().kt_keep_owners(ops._context, 1)
        used = case(ops, n)
        entries = owners(ops)
        for weight, index in used:
            check(entries, weight, index)
    finally:
        ops.close()
