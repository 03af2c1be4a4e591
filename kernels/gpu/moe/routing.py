"""The router's choice: logits to expert ids and weights (`kernels.ops.Routing`), one program a token.

Experts form a (groups, experts a group) tile, one group where a model has none. Equal scores go to the
lower index, groups and experts alike. A logit that is no number is chosen last: ids are always valid.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
import triton
import triton.language as tl
from torch import Tensor as X

from kernels.ops import Gating, Routing

MAX_EXPERTS = 4096
_LOWEST = tl.constexpr(-1.0e38)  # two of them still have a sum


def route(
    logits: X, bias: X | None, scales: X | None, routing: Routing, ids: X, weights: X
) -> None:
    """Choose `routing.top_k` experts a token.

    logits is (n, experts) float32, bias and scales (experts,) float32 or None; ids (n, top_k) int32 and
    weights (n, top_k) float32 are written, best expert first.
    """
    n, experts = logits.shape
    check(n, experts, logits, (bias, scales), routing, ids, weights)
    _route[(n,)](
        logits,
        *vectors(bias, scales, logits),
        ids,
        weights,
        logits.stride(0),
        routing.floor,
        routing.scale,
        **constants(experts, routing, bias, scales),
        num_warps=1 if experts <= 32 else 4,
    )


def vectors(bias: X | None, scales: X | None, other: X) -> tuple[X, X]:
    """The two, or something in their place that nobody reads."""
    return other if bias is None else bias, other if scales is None else scales


def constants(experts: int, routing: Routing, bias: X | None, scales: X | None) -> dict[str, Any]:
    """What `choose` is compiled for."""
    size = experts // routing.groups
    return {
        "GROUPS": routing.groups,
        "SIZE": size,
        "TOP_GROUPS": min(routing.top_groups, routing.groups),
        "TOP_K": routing.top_k,
        "GATING": get_args(Gating).index(routing.gating),
        "BIASED": bias is not None,
        "SCALED": scales is not None,
        "NORMALISE": routing.normalise,
        "GROUP_BLOCK": triton.next_power_of_2(routing.groups),
        "SIZE_BLOCK": triton.next_power_of_2(size),
    }


def check(
    n: int,
    experts: int,
    logits: X,
    vectors: tuple[X | None, ...],
    routing: Routing,
    ids: X,
    weights: X,
) -> None:
    """Raise ValueError for what cannot be chosen, or buffers that do not fit."""
    groups = routing.groups
    if n < 1 or not 1 <= experts <= MAX_EXPERTS or groups < 1 or experts % groups:
        raise ValueError(f"{n} tokens for {experts} experts in {groups} groups")
    size, kept = experts // groups, min(routing.top_groups, groups)
    if not 1 <= routing.top_k <= kept * size or (groups > 1 and size < 2):
        raise ValueError(f"top {routing.top_k} of {kept} groups of {size} experts")
    wrong = any(vector is not None and vector.shape != (experts,) for vector in vectors)
    if logits.stride(1) != 1 or wrong:
        raise ValueError(f"strided logits, or a bias for other than {experts} experts")
    for name, out, kind in (("ids", ids, torch.int32), ("weights", weights, torch.float32)):
        if out.shape != (n, routing.top_k) or out.dtype != kind or not out.is_contiguous():
            raise ValueError(f"{name} of {tuple(out.shape)} {out.dtype}")


@triton.jit
def _keep_groups(
    biased: tl.tensor,
    GROUPS: tl.constexpr,
    TOP_GROUPS: tl.constexpr,
    GROUP_BLOCK: tl.constexpr,
    SIZE_BLOCK: tl.constexpr,
) -> tl.tensor:
    """Experts outside the best groups become -inf; a group's worth is the sum of its two best."""
    group = tl.arange(0, GROUP_BLOCK)
    first = tl.argmax(biased, axis=1)
    within = tl.arange(0, SIZE_BLOCK)[None, :]
    second = tl.max(tl.where(within == first[:, None], float("-inf"), biased), axis=1)
    worth = tl.where(group < GROUPS, tl.max(biased, axis=1) + second, float("-inf"))
    kept = tl.zeros([GROUP_BLOCK], tl.int32)
    for _ in tl.static_range(TOP_GROUPS):
        best = tl.argmax(worth, axis=0)
        kept = tl.where(group == best, 1, kept)
        worth = tl.where(group == best, float("-inf"), worth)
    return tl.where(kept[:, None] == 1, biased, float("-inf"))


@triton.jit
def _ranks(worth: tl.tensor, SIZE: tl.constexpr) -> tl.tensor:
    """How many of the worths (SIZE,) are greater than each, or equal and before it.

    All compared with all: a loop over the largest would wait for the whole program in each of its steps.
    """
    PART: tl.constexpr = min(SIZE, 32)
    index = tl.arange(0, SIZE)
    parts = tl.reshape(worth, [SIZE // PART, PART])
    number = tl.arange(0, SIZE // PART)[:, None]
    rank = tl.zeros([SIZE], tl.int32)
    for part in range(SIZE // PART):
        other = tl.sum(tl.where(number == part, parts, 0.0), axis=0)[None, :]
        before = part * PART + tl.arange(0, PART)[None, :] < index[:, None]
        wins = (other > worth[:, None]) | ((other == worth[:, None]) & before)
        rank += tl.sum(wins.to(tl.int32), axis=1)
    return rank


@triton.jit
def choose(
    x: tl.tensor,
    bias: tl.tensor,
    scales: tl.tensor,
    floor: tl.tensor,
    scale: tl.tensor,
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
) -> tl.tensor:
    """Of one token's logits (GROUP_BLOCK, SIZE_BLOCK): (experts, ranks, weights) of as many, in one row; those with a
    rank below TOP_K are chosen."""
    group = tl.arange(0, GROUP_BLOCK)[:, None]
    within = tl.arange(0, SIZE_BLOCK)[None, :]
    inside = (group < GROUPS) & (within < SIZE)
    expert = group * SIZE + within
    if GATING == 0:
        top = tl.max(tl.max(x, axis=1), axis=0)
        raised = tl.exp(x - top)
        scores = raised / tl.sum(tl.sum(raised, axis=1), axis=0)
    elif GATING == 1:
        scores = 1.0 / (1.0 + tl.exp(-x))
    else:
        scores = x
    biased = scores
    if BIASED:
        biased += tl.load(bias + expert, mask=inside, other=0.0)
    biased = tl.where(biased >= _LOWEST, biased, _LOWEST)  # no number compares false
    biased = tl.where(inside, biased, float("-inf"))
    if TOP_GROUPS < GROUPS:
        biased = _keep_groups(biased, GROUPS, TOP_GROUPS, GROUP_BLOCK, SIZE_BLOCK)
    ALL: tl.constexpr = GROUP_BLOCK * SIZE_BLOCK
    rank = _ranks(tl.reshape(biased, [ALL]), ALL)
    chosen = rank < TOP_K
    expert = tl.reshape(tl.broadcast_to(expert, [GROUP_BLOCK, SIZE_BLOCK]), [ALL])
    weight = tl.reshape(scores, [ALL])
    if GATING == 2:
        of_chosen = tl.where(chosen, weight, float("-inf"))
        raised = tl.exp(of_chosen - tl.max(of_chosen, axis=0))
        weight = raised / tl.sum(raised, axis=0)
    if NORMALISE:
        total = tl.sum(tl.where(chosen, weight, 0.0), axis=0)
        weight = weight / tl.maximum(total, floor)
    if SCALED:
        weight *= tl.load(scales + expert, mask=chosen, other=0.0)
    return expert, rank, weight * scale


@triton.jit
def load_logits(
    logits: tl.tensor,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    GROUP_BLOCK: tl.constexpr,
    SIZE_BLOCK: tl.constexpr,
) -> tl.tensor:
    """One token's, as `choose` takes them; other programs of the same launch may have stored them."""
    group = tl.arange(0, GROUP_BLOCK)[:, None]
    within = tl.arange(0, SIZE_BLOCK)[None, :]
    inside = (group < GROUPS) & (within < SIZE)
    expert = group * SIZE + within
    return tl.load(logits + expert, mask=inside, other=float("-inf"), cache_modifier=".cg")


@triton.jit
def _route(
    logits: tl.tensor,
    bias: tl.tensor,
    scales: tl.tensor,
    ids: tl.tensor,
    weights: tl.tensor,
    logits_stride: tl.tensor,
    floor: tl.tensor,
    scale: tl.tensor,
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
    token = tl.program_id(0).to(tl.int64)
    x = load_logits(logits + token * logits_stride, GROUPS, SIZE, GROUP_BLOCK, SIZE_BLOCK)
    expert, rank, weight = choose(
        x, bias, scales, floor, scale, GROUPS, SIZE, TOP_GROUPS, TOP_K, GATING, BIASED, SCALED,
        NORMALISE, GROUP_BLOCK, SIZE_BLOCK,
    )  # fmt: skip
    tl.store(ids + token * TOP_K + rank, expert, mask=rank < TOP_K)
    tl.store(weights + token * TOP_K + rank, weight, mask=rank < TOP_K)
