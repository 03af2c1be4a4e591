"""RMSNorm, SwiGLU and gates by a sigmoid, each in one pass over the rows.

Every function writes to tensors that the caller owns and neither allocates nor waits, so that a CUDA graph
can capture it. Rows may be strided, features are contiguous; arithmetic is float32.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.dependents import behind_previous, early
from kernels.gpu.quant.q8 import Q8, store_q8
from kernels.parameters import ALPHA, LIMIT

_LIMIT, _ALPHA = tl.constexpr(LIMIT), tl.constexpr(ALPHA)
MAX_FEATURES = 32768
COLUMNS = 1024


def rms_norm(
    x: X,
    weight: X,
    eps: float,
    out: X,
    residual: X | None = None,
    q8: Q8 | None = None,
    flag: X | None = None,
) -> None:
    """out = RMSNorm(x) * weight over the last axis (Zhang and Sennrich, 2019).

    x and out are (n, features). With `residual`, residual += x first and its norm is taken; x may then lie in pinned
    memory of the host, and `flag` (1,) int32 is 0 afterwards. Heads are normed by viewing (n, heads * d) as
    (n * heads, d). `out` may be `x` itself. `q8` gets the same in 8 bits.
    """
    n, features = x.shape
    check_rows(n, features, x, out, *(() if residual is None else (residual,)))
    check_vector(features, weight)
    block = triton.next_power_of_2(features)
    rest = x if residual is None else residual
    _rms_norm[(n,)](
        x,
        rest,
        weight,
        out,
        None if q8 is None else q8.numbers,
        None if q8 is None else q8.factors,
        flag,
        x.stride(0),
        rest.stride(0),
        out.stride(0),
        eps,
        FEATURES=features,
        BLOCK=block,
        ADD=residual is not None,
        num_warps=warps(block),
        **early(x.device if residual is None else residual.device),
    )


def activate(
    gate: X,
    up: X,
    out: X,
    activation: int = 0,
    ids: X | None = None,
    biases: tuple[X, X] | None = None,
) -> None:
    """out = activation of gate and up (a number of `ACTIVATIONS`), each (n, features).

    gate and up may be halves of one product. Row i gets row ids[i] of `biases` (experts, features) first; rows
    whose id is below zero get anything.
    """
    n, features = gate.shape
    check_rows(n, features, gate, up, out)
    first, second = biases or (gate, up)
    _activate[(n, triton.cdiv(features, COLUMNS))](
        gate,
        up,
        out,
        gate if ids is None else ids,
        first,
        second,
        gate.stride(0),
        up.stride(0),
        out.stride(0),
        first.stride(0),
        second.stride(0),
        ACTIVATION=activation,
        BIASED=biases is not None,
        FEATURES=features,
        BLOCK=min(COLUMNS, triton.next_power_of_2(features)),
        num_warps=4,
    )


def gated_add(x: X, scaler: X, update: X, residual: X) -> None:
    """residual += update * sigmoid(x @ scaler): qwen2moe's shared expert. All are (n, hidden)."""
    n, features = x.shape
    check_rows(n, features, x, update, residual)
    check_vector(features, scaler)
    block = triton.next_power_of_2(features)
    _gated_add[(n,)](
        x,
        scaler,
        update,
        residual,
        x.stride(0),
        update.stride(0),
        residual.stride(0),
        FEATURES=features,
        BLOCK=block,
        num_warps=warps(block),
    )


def sigmoid_gate(x: X, gate: X) -> None:
    """x *= sigmoid(gate), each (n, features)."""
    n, features = x.shape
    check_rows(n, features, x, gate)
    _sigmoid_gate[(n, triton.cdiv(features, COLUMNS))](
        x,
        gate,
        x.stride(0),
        gate.stride(0),
        FEATURES=features,
        BLOCK=min(COLUMNS, triton.next_power_of_2(features)),
        num_warps=4,
    )


def warps(block: int) -> int:
    """Warps for one program over `block` features: 8 to 16 features a thread."""
    return 4 if block <= 2048 else 8 if block <= 4096 else 16


def check_rows(n: int, features: int, *rows: X) -> None:
    """Raise ValueError unless all are (n, features) with contiguous features."""
    if n < 1 or not 1 <= features <= MAX_FEATURES:
        raise ValueError(f"{n} rows of {features} features; at most {MAX_FEATURES} are handled")
    for row in rows:
        if row.shape != (n, features) or row.stride(1) != 1:
            raise ValueError(f"rows of shape {tuple(row.shape)} for ({n}, {features})")


def check_vector(features: int, vector: X) -> None:
    """Raise ValueError unless it is a contiguous vector of `features`."""
    if vector.shape != (features,) or not vector.is_contiguous():
        raise ValueError(f"a vector of shape {tuple(vector.shape)} for {features} features")


@triton.jit
def _rms_norm(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    numbers: tl.tensor,
    factors: tl.tensor,
    flag: tl.tensor,
    x_stride: tl.tensor,
    residual_stride: tl.tensor,
    out_stride: tl.tensor,
    eps: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    ADD: tl.constexpr,
) -> None:
    behind_previous()
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < FEATURES
    values = tl.load(x + row * x_stride + d, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        rest = residual + row * residual_stride + d
        values += tl.load(rest, mask=inside, other=0.0).to(tl.float32)
        tl.store(rest, values.to(residual.dtype.element_ty), mask=inside)
    scale = tl.rsqrt(tl.sum(values * values, axis=0) / FEATURES + eps)
    values = values * scale * tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + d, values.to(out.dtype.element_ty), mask=inside)
    if numbers is not None:
        numbers += row * FEATURES
        store_q8(values, 0, numbers, factors + row * (FEATURES // 32 * 4), FEATURES, BLOCK)
    if flag is not None:
        tl.store(flag, 0)


@triton.jit
def activated(g: tl.tensor, u: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """The activation of float32 gates and ups (`kernels.parameters.Activation`)."""
    if ACTIVATION == 2:
        steep = g * (1.5957691216057308 + 0.07135481282553505 * g * g)
        return g / (1.0 + tl.exp(-steep)) * u
    if ACTIVATION == 1:
        g = tl.minimum(g, _LIMIT)
        u = tl.minimum(tl.maximum(u, -_LIMIT), _LIMIT)
        return g / (1.0 + tl.exp(g * -_ALPHA)) * (u + 1.0)
    return g / (1.0 + tl.exp(-g)) * u


@triton.jit
def _activate(
    gate: tl.tensor,
    up: tl.tensor,
    out: tl.tensor,
    ids: tl.tensor,
    gate_bias: tl.tensor,
    up_bias: tl.tensor,
    gate_stride: tl.tensor,
    up_stride: tl.tensor,
    out_stride: tl.tensor,
    gate_bias_stride: tl.tensor,
    up_bias_stride: tl.tensor,
    ACTIVATION: tl.constexpr,
    BIASED: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = d < FEATURES
    g = tl.load(gate + row * gate_stride + d, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + d, mask=inside, other=0.0).to(tl.float32)
    if BIASED:
        source = tl.maximum(tl.load(ids + row), 0).to(tl.int64)
        g += tl.load(gate_bias + source * gate_bias_stride + d, mask=inside, other=0.0)
        u += tl.load(up_bias + source * up_bias_stride + d, mask=inside, other=0.0)
    hidden = activated(g, u, ACTIVATION)
    tl.store(out + row * out_stride + d, hidden.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gated_add(
    x: tl.tensor,
    scaler: tl.tensor,
    update: tl.tensor,
    residual: tl.tensor,
    x_stride: tl.tensor,
    update_stride: tl.tensor,
    residual_stride: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < FEATURES
    values = tl.load(x + row * x_stride + d, mask=inside, other=0.0).to(tl.float32)
    values *= tl.load(scaler + d, mask=inside, other=0.0).to(tl.float32)
    share = 1.0 / (1.0 + tl.exp(-tl.sum(values, axis=0)))
    added = tl.load(update + row * update_stride + d, mask=inside, other=0.0).to(tl.float32)
    rest = residual + row * residual_stride + d
    total = tl.load(rest, mask=inside, other=0.0).to(tl.float32) + added * share
    tl.store(rest, total.to(residual.dtype.element_ty), mask=inside)


@triton.jit
def _sigmoid_gate(
    x: tl.tensor,
    gate: tl.tensor,
    x_stride: tl.tensor,
    gate_stride: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = d < FEATURES
    g = tl.load(gate + row * gate_stride + d, mask=inside, other=0.0).to(tl.float32)
    values = x + row * x_stride + d
    gated = tl.load(values, mask=inside, other=0.0).to(tl.float32) / (1.0 + tl.exp(-g))
    tl.store(values, gated.to(x.dtype.element_ty), mask=inside)
