"""The short convolution before the delta rule: SiLU of it, and queries and keys of length one."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.recurrent.gates import silu
from kernels.recurrent import DeltaNet

TILE = 16
"""Tokens of a program: it sees no further than the tile before its own."""


def short_convolution(qkv: X, taps: X, eps: float, net: DeltaNet, last: X, out: X) -> None:
    """out = SiLU of the causal convolution; then each q and k head over its length, q over sqrt(key) too.

    qkv is (n, conv_features), `out` the same and contiguous. `last`, (kernel - 1, conv_features), holds
    the tokens before these, and then the last of these.
    """
    n = len(qkv)
    tokens = 1 if n == 1 else TILE
    _short_convolution[(triton.cdiv(n, tokens), 2 * net.key_heads + net.value_heads)](
        qkv,
        taps,
        last,
        out,
        n,
        qkv.stride(0),
        eps,
        net.key**-0.5,
        KEY_HEADS=net.key_heads,
        KEY=net.key,
        VALUE=net.value,
        FEATURES=net.conv_features,
        KERNEL=net.kernel,
        TOKENS=tokens,
        LAST=triton.next_power_of_2(net.kernel - 1),
        BLOCK=triton.next_power_of_2(max(net.key, net.value)),
        num_warps=1 if n == 1 else 4,
    )


@triton.jit(do_not_specialize=["n"])
def _short_convolution(
    qkv: tl.tensor,
    taps: tl.tensor,
    last: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    qkv_stride: tl.tensor,
    eps: tl.tensor,
    scale: tl.tensor,
    KEY_HEADS: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    FEATURES: tl.constexpr,
    KERNEL: tl.constexpr,
    TOKENS: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    head = tl.program_id(1)
    unit = head < 2 * KEY_HEADS
    begin = tl.where(unit, head * KEY, 2 * KEY_HEADS * KEY + (head - 2 * KEY_HEADS) * VALUE)
    d = tl.arange(0, BLOCK)
    inside = d < tl.where(unit, KEY, VALUE)
    feature = begin + d
    first = tl.program_id(0) * TOKENS
    token = first + tl.arange(0, TOKENS)
    x = tl.zeros([TOKENS, BLOCK], tl.float32)
    for tap in tl.static_range(KERNEL):
        source = (token + tap - (KERNEL - 1))[:, None]
        seen = _seen(qkv, last, source, feature[None, :], inside[None, :], n, qkv_stride, FEATURES, KERNEL)  # fmt: skip
        x += seen * tl.load(taps + feature * KERNEL + tap, mask=inside, other=0.0)[None, :]
    x = silu(x)
    length = tl.rsqrt(tl.sum(x * x, axis=1) + eps) * tl.where(head < KEY_HEADS, scale, 1.0)
    x = tl.where(unit, x * length[:, None], x)
    to_out = out + token.to(tl.int64)[:, None] * FEATURES + feature[None, :]
    tl.store(to_out, x, mask=(token < n)[:, None] & inside[None, :])
    if first == 0:  # the one program that reads these features of `last`
        row = tl.arange(0, LAST)[:, None]
        newest = n + row - (KERNEL - 1)
        kept = inside[None, :] & (row < KERNEL - 1)
        moved = _seen(qkv, last, newest, feature[None, :], kept, n, qkv_stride, FEATURES, KERNEL)
        tl.debug_barrier()  # all threads have read before one writes
        tl.store(last + row * FEATURES + feature[None, :], moved, mask=kept)


@triton.jit
def _seen(
    qkv: tl.tensor,
    last: tl.tensor,
    source: tl.tensor,
    feature: tl.tensor,
    inside: tl.tensor,
    n: tl.tensor,
    qkv_stride: tl.tensor,
    FEATURES: tl.constexpr,
    KERNEL: tl.constexpr,
) -> tl.tensor:
    """Features of token `source`, which is one of `last` where it is below zero."""
    new = qkv + source.to(tl.int64) * qkv_stride + feature
    old = last + (source + (KERNEL - 1)) * FEATURES + feature
    is_new = (source >= 0) & (source < n)
    seen = tl.load(new, mask=inside & is_new, other=0.0).to(tl.float32)
    return seen + tl.load(old, mask=inside & (source < 0), other=0.0)
