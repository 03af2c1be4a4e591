"""Norms added to a residual and soft caps, each in one pass over the rows.

As in `kernels.gpu.elementwise`, nothing here allocates or waits; arithmetic is float32.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.elementwise import COLUMNS, check_rows, check_vector, warps


def norm_add(x: X, weight: X, eps: float, residual: X, scale: X | None) -> None:
    """residual = (residual + RMSNorm(x) * weight) * scale; all are (n, features) but scale, (1,)."""
    n, features = x.shape
    check_rows(n, features, x, residual)
    check_vector(features, weight)
    if scale is not None:
        check_vector(1, scale)
    block = triton.next_power_of_2(features)
    _norm_add[(n,)](
        x,
        weight,
        residual,
        weight if scale is None else scale,
        x.stride(0),
        residual.stride(0),
        eps,
        FEATURES=features,
        BLOCK=block,
        SCALED=scale is not None,
        num_warps=warps(block),
    )


def soft_cap(x: X, cap: float) -> None:
    """x = cap * tanh(x / cap), (n, features)."""
    n, features = x.shape
    if n < 1 or x.stride(1) != 1:
        raise ValueError(f"rows of shape {tuple(x.shape)} with strides {x.stride()}")
    _soft_cap[(n, triton.cdiv(features, COLUMNS))](
        x,
        x.stride(0),
        cap,
        features,
        BLOCK=COLUMNS,
        num_warps=4,
    )


def add_rows(x: X, rows: X, ids: X) -> None:
    """x (n, features) += rows[ids] of (count, features), but for ids below zero."""
    n, features = x.shape
    check_rows(n, features, x)
    _add_rows[(n, triton.cdiv(features, COLUMNS))](
        x,
        rows,
        ids,
        x.stride(0),
        rows.stride(0),
        FEATURES=features,
        BLOCK=min(COLUMNS, triton.next_power_of_2(features)),
        num_warps=4,
    )


@triton.jit
def _norm_add(
    x: tl.tensor,
    weight: tl.tensor,
    residual: tl.tensor,
    factor: tl.tensor,
    x_stride: tl.tensor,
    residual_stride: tl.tensor,
    eps: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALED: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < FEATURES
    values = tl.load(x + row * x_stride + d, mask=inside, other=0.0)
    scale = tl.rsqrt(tl.sum(values * values, axis=0) / FEATURES + eps)
    rest = residual + row * residual_stride + d
    values = values * scale * tl.load(weight + d, mask=inside, other=0.0)
    values += tl.load(rest, mask=inside, other=0.0)
    if SCALED:
        values *= tl.load(factor)
    tl.store(rest, values, mask=inside)


@triton.jit
def _soft_cap(
    x: tl.tensor,
    x_stride: tl.tensor,
    cap: tl.tensor,
    features: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    values = x + tl.program_id(0).to(tl.int64) * x_stride + d
    twice = tl.load(values, mask=d < features, other=0.0) * (2.0 / cap)
    tl.store(values, cap - 2.0 * cap / (1.0 + tl.exp(twice)), mask=d < features)


@triton.jit
def _add_rows(
    x: tl.tensor,
    rows: tl.tensor,
    ids: tl.tensor,
    x_stride: tl.tensor,
    rows_stride: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(ids + row).to(tl.int64)
    inside = (d < FEATURES) & (source >= 0)
    values = tl.load(x + row * x_stride + d, mask=inside, other=0.0)
    added = tl.load(rows + source * rows_stride + d, mask=inside, other=0.0)
    tl.store(x + row * x_stride + d, values + added, mask=inside)
