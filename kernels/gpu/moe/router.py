"""The norm before a router of float32 and the router's logits, in one launch for few tokens."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.elementwise import check_rows, check_vector, warps
from kernels.gpu.quant.q8 import Q8, store_q8

_ROWS = 256 if triton.knobs.runtime.interpret else 2
"""Experts of a program; in the interpreter it is programs that take time."""


def norm_router(
    x: X, norm: X, eps: float, router: X, bias: X | None, out: X, logits: X, q8: Q8 | None
) -> None:
    """out = RMSNorm(x) * norm, (n, hidden), and in `q8`; logits (n, experts) = out @ router.T + bias.

    Every program takes the norm for itself: a row is small beside the launch that it saves.
    """
    n, hidden = x.shape
    experts = len(router)
    check_rows(n, hidden, x, out)
    check_vector(hidden, norm)
    if router.shape != (experts, hidden) or router.stride(1) != 1 or not logits.is_contiguous():
        raise ValueError(f"a router of shape {tuple(router.shape)} for {hidden} features")
    block = triton.next_power_of_2(hidden)
    _norm_router[(triton.cdiv(experts, _ROWS), n)](
        *(x, norm, router, bias, out, logits),
        None if q8 is None else q8.numbers,
        None if q8 is None else q8.factors,
        *(x.stride(0), router.stride(0), out.stride(0), experts, eps),
        FEATURES=hidden,
        BLOCK=block,
        ROWS=_ROWS,
        num_warps=warps(block),
    )


@triton.jit
def _norm_router(
    x: tl.tensor,
    norm: tl.tensor,
    router: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    logits: tl.tensor,
    numbers: tl.tensor,
    factors: tl.tensor,
    x_stride: tl.tensor,
    router_stride: tl.tensor,
    out_stride: tl.tensor,
    experts: tl.tensor,
    eps: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    token = tl.program_id(1).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < FEATURES
    values = tl.load(x + token * x_stride + d, mask=inside, other=0.0)
    scale = tl.rsqrt(tl.sum(values * values, axis=0) / FEATURES + eps)
    values = values * scale * tl.load(norm + d, mask=inside, other=0.0)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    from_router = router + row[:, None].to(tl.int64) * router_stride + d[None, :]
    weights = tl.load(from_router, mask=(row < experts)[:, None] & inside[None, :], other=0.0)
    total = tl.sum(weights * values[None, :], axis=1)
    if bias is not None:
        total += tl.load(bias + row, mask=row < experts, other=0.0)
    tl.store(logits + token * experts + row, total, mask=row < experts)
    if tl.program_id(0) == 0:
        tl.store(out + token * out_stride + d, values, mask=inside)
        if numbers is not None:
            numbers += token * FEATURES
            store_q8(values, 0, numbers, factors + token * (FEATURES // 32 * 4), FEATURES, BLOCK)
