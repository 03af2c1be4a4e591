"""A router of float32 in one launch for few tokens: the norm before it, its logits, its choice, and the request of a
layer that has experts on the host."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.dependents import behind_previous, early
from kernels.gpu.elementwise import check_rows, check_vector, warps
from kernels.gpu.memory.read_ahead import Parts, fetch
from kernels.gpu.memory.signals import is_last, raise_flag
from kernels.gpu.moe.routing import check, choose, constants, load_logits, vectors
from kernels.gpu.quant.q8 import Q8, store_q8
from kernels.ops import Routing

_ROWS = 256 if triton.knobs.runtime.interpret else 2
"""Experts of a program; in the interpreter it is programs that take time."""


@dataclass(frozen=True, slots=True)
class Router:
    """What chooses: norm (hidden,), matrix (experts, hidden), and over its experts what is added to logits, what is
    added for the choice alone, and what weights are multiplied by, each (experts,) or None."""

    norm: X
    eps: float
    matrix: X
    routing: Routing
    logit_bias: X | None = None
    bias: X | None = None
    scales: X | None = None


@dataclass(frozen=True, slots=True)
class Routed:
    """What few tokens get: normed rows (n, hidden), maybe in 8 bits too, logits (n, experts), ids and weights
    (n, top_k)."""

    normed: X
    logits: X
    ids: X
    weights: X
    q8: Q8 | None = None


def norm_route(
    x: X,
    router: Router,
    out: Routed,
    counters: X,
    request: tuple[X, X | None] | None = None,
    ahead: Parts | None = None,
) -> None:
    """Norm x (n, hidden) and choose experts for each row.

    Every program takes the norm for itself: a row is small beside the launch that it saves. The last to end chooses.
    `counters` are n zeros, int32, and zeros afterwards. `request`, of one row, is where normed row, weights and ids are
    stored too, in memory of the host, and a flag (1,) int32 that is raised then. Programs that do not choose fetch
    what is `ahead` into the L2 cache.
    """
    n, hidden = x.shape
    matrix, routing = router.matrix, router.routing
    experts = len(matrix)
    check_rows(n, hidden, x, out.normed)
    check_vector(hidden, router.norm)
    if matrix.shape != (experts, hidden) or matrix.stride(1) != 1 or not out.logits.is_contiguous():
        raise ValueError(f"a router of shape {tuple(matrix.shape)} for {hidden} features")
    check(n, experts, out.logits, (router.bias, router.scales), routing, out.ids, out.weights)
    if len(counters) < n or (request is not None and n > 1):
        raise ValueError(f"{len(counters)} counters for {n} rows")
    requested, flag = (None, None) if request is None else request
    block = triton.next_power_of_2(hidden)
    _norm_route[(triton.cdiv(experts, _ROWS), n)](
        *(x, router.norm, matrix, router.logit_bias, out.normed, out.logits),
        None if out.q8 is None else out.q8.numbers,
        None if out.q8 is None else out.q8.factors,
        *vectors(router.bias, router.scales, out.logits),
        *(out.ids, out.weights, counters, requested, flag, ahead),
        *(x.stride(0), matrix.stride(0), out.normed.stride(0), experts, router.eps),
        *(routing.floor, routing.scale),
        FEATURES=hidden,
        BLOCK=block,
        ROWS=_ROWS,
        **constants(experts, routing, router.bias, router.scales),
        num_warps=warps(block),
        **early(x.device),
    )


@triton.jit
def _norm_route(
    x: tl.tensor,
    norm: tl.tensor,
    router: tl.tensor,
    logit_bias: tl.tensor,
    out: tl.tensor,
    logits: tl.tensor,
    numbers: tl.tensor,
    factors: tl.tensor,
    bias: tl.tensor,
    scales: tl.tensor,
    ids: tl.tensor,
    weights: tl.tensor,
    counters: tl.tensor,
    requested: tl.tensor,
    flag: tl.tensor,
    ahead: tl.tensor,
    x_stride: tl.tensor,
    router_stride: tl.tensor,
    out_stride: tl.tensor,
    experts: tl.tensor,
    eps: tl.tensor,
    floor: tl.tensor,
    scale: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    TOP_GROUPS: tl.constexpr,
    TOP_K: tl.constexpr,
    GATING: tl.constexpr,
    BIASED: tl.constexpr,
    SCALED: tl.constexpr,
    NORMALISE: tl.constexpr,
    GROUP_BLOCK: tl.constexpr,
    SIZE_BLOCK: tl.constexpr,
) -> None:
    behind_previous()
    token = tl.program_id(1).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < FEATURES
    values = tl.load(x + token * x_stride + d, mask=inside, other=0.0)
    norm_scale = tl.rsqrt(tl.sum(values * values, axis=0) / FEATURES + eps)
    values = values * norm_scale * tl.load(norm + d, mask=inside, other=0.0)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    from_router = router + row[:, None].to(tl.int64) * router_stride + d[None, :]
    matrix = tl.load(from_router, mask=(row < experts)[:, None] & inside[None, :], other=0.0)
    total = tl.sum(matrix * values[None, :], axis=1)
    if logit_bias is not None:
        total += tl.load(logit_bias + row, mask=row < experts, other=0.0)
    tl.store(logits + token * experts + row, total, mask=row < experts)
    if tl.program_id(0) == 0:
        tl.store(out + token * out_stride + d, values, mask=inside)
        if numbers is not None:
            to_numbers = numbers + token * FEATURES
            to_factors = factors + token * (FEATURES // 32 * 4)
            store_q8(values, 0, to_numbers, to_factors, FEATURES, BLOCK)
    if is_last(counters + token, tl.num_programs(0)):
        scores = load_logits(logits + token * experts, GROUPS, SIZE, GROUP_BLOCK, SIZE_BLOCK)
        expert, rank, weight = choose(
            scores, bias, scales, floor, scale, GROUPS, SIZE, TOP_GROUPS, TOP_K, GATING, BIASED,
            SCALED, NORMALISE, GROUP_BLOCK, SIZE_BLOCK,
        )  # fmt: skip
        chosen = rank < TOP_K
        tl.store(ids + token * TOP_K + rank, expert, mask=chosen)
        tl.store(weights + token * TOP_K + rank, weight, mask=chosen)
        if requested is not None:
            tl.store(requested + d, values, mask=inside)
            tl.store(requested + FEATURES + rank, weight, mask=chosen)
            number = expert.to(tl.float32, bitcast=True)
            tl.store(requested + FEATURES + TOP_K + rank, number, mask=chosen)
            if flag is not None:
                raise_flag(flag)
    elif ahead is not None:
        fetch(ahead, tl.program_id(0), tl.num_programs(0))
