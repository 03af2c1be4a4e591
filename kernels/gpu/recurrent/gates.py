"""The gates of a delta net, which its kernels share: decay and rate of a head, and the norm of its output."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.recurrent import DeltaNet

_HEADS = 8


def gated_norm(out: X, norm: X, z: X, eps: float, net: DeltaNet) -> None:
    """out = RMSNorm(out) * norm * SiLU(z) per value head, in place; out and z are (n, values)."""
    _gated_norm[(len(out), triton.cdiv(net.value_heads, _HEADS))](
        out,
        norm,
        z,
        z.stride(0),
        eps,
        HEADS=net.value_heads,
        VALUE=net.value,
        HEADS_BLOCK=_HEADS,
        VALUE_BLOCK=triton.next_power_of_2(net.value),
        num_warps=4,
    )


@triton.jit
def _gated_norm(
    out: tl.tensor,
    norm: tl.tensor,
    z: tl.tensor,
    z_stride: tl.tensor,
    eps: tl.tensor,
    HEADS: tl.constexpr,
    VALUE: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS_BLOCK + tl.arange(0, HEADS_BLOCK)[:, None]
    e = tl.arange(0, VALUE_BLOCK)[None, :]
    inside = (head < HEADS) & (e < VALUE)
    feature = head * VALUE + e
    rows = out + token * (HEADS * VALUE) + feature
    o = tl.load(rows, mask=inside, other=0.0)
    gate = tl.load(z + token * z_stride + feature, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(norm + e, mask=e < VALUE, other=0.0)
    scale = tl.rsqrt(tl.sum(o * o, axis=1) / VALUE + eps)
    tl.store(rows, o * scale[:, None] * weight * silu(gate), mask=inside)


@triton.jit
def silu(x: tl.tensor) -> tl.tensor:
    return x / (1.0 + tl.exp(-x))


@triton.jit
def log_decay(alpha: tl.tensor, a: tl.tensor, dt: tl.tensor) -> tl.tensor:
    """a * softplus(alpha + dt), at most 0 for a negative a."""
    return a * softplus(alpha + dt)


@triton.jit
def softplus(x: tl.tensor) -> tl.tensor:
    """log(1 + exp(x)) to float32's last bits, small results too: a decay of nearly 1 acts a thousand times.

    log(1 + e) is 2 atanh(e / (2 + e)), whose argument is at most 1/3: the series ends below 2^-26. A
    logarithm of 1 + e would have lost what e has below 2^-24.
    """
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)
    t = s * s
    series = 1.0 / 15.0
    for odd in tl.static_range(13, 0, -2):
        series = series * t + 1.0 / odd
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def key_head_of(
    head: tl.tensor, KEY_HEADS: tl.constexpr, VALUE_HEADS: tl.constexpr, TILED: tl.constexpr
) -> tl.tensor:
    """The key head that a value head reads."""
    return head % KEY_HEADS if TILED else head // (VALUE_HEADS // KEY_HEADS)
