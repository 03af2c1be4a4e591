"""The router's choice: logits to expert ids and weights (`kernels.ops.Routing`), one program a token.

Experts form a (groups, experts a group) tile, one group where a model has none. Equal scores go to the
lower index, groups and experts alike. A logit that is no number is chosen last: ids are always valid.
"""

from __future__ import annotations

from typing import get_args

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
    _check(n, experts, logits, (bias, scales), routing, ids, weights)
    size = experts // routing.groups
    _route[(n,)](
        logits,
        logits if bias is None else bias,
        logits if scales is None else scales,
        ids,
        weights,
        logits.stride(0),
        routing.floor,
        routing.scale,
        GROUPS=routing.groups,
        SIZE=size,
        TOP_GROUPS=min(routing.top_groups, routing.groups),
        TOP_K=routing.top_k,
        GATING=get_args(Gating).index(routing.gating),
        BIASED=bias is not None,
        SCALED=scales is not None,
        NORMALISE=routing.normalise,
        GROUP_BLOCK=triton.next_power_of_2(routing.groups),
        SIZE_BLOCK=triton.next_power_of_2(size),
        CHOICES=triton.next_power_of_2(routing.top_k),
        num_warps=1 if experts <= 128 else 4,
    )


def _check(
    n: int,
    experts: int,
    logits: X,
    vectors: tuple[X | None, ...],
    routing: Routing,
    ids: X,
    weights: X,
) -> None:
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
    CHOICES: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, GROUP_BLOCK)[:, None]
    within = tl.arange(0, SIZE_BLOCK)[None, :]
    inside = (group < GROUPS) & (within < SIZE)
    expert = group * SIZE + within
    x = tl.load(logits + token * logits_stride + expert, mask=inside, other=float("-inf"))
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
    left = tl.reshape(biased, [GROUP_BLOCK * SIZE_BLOCK])
    scores = tl.reshape(scores, [GROUP_BLOCK * SIZE_BLOCK])
    index = tl.arange(0, GROUP_BLOCK * SIZE_BLOCK)
    slot = tl.arange(0, CHOICES)
    chosen = tl.zeros([CHOICES], tl.int32)
    weight = tl.zeros([CHOICES], tl.float32)
    for k in tl.static_range(TOP_K):
        at = tl.argmax(left, axis=0)
        chosen = tl.where(slot == k, at // SIZE_BLOCK * SIZE + at % SIZE_BLOCK, chosen)
        weight = tl.where(slot == k, tl.sum(tl.where(index == at, scores, 0.0), axis=0), weight)
        left = tl.where(index == at, float("-inf"), left)
    if GATING == 2:
        of_chosen = tl.where(slot < TOP_K, weight, float("-inf"))
        raised = tl.exp(of_chosen - tl.max(of_chosen, axis=0))
        weight = raised / tl.sum(raised, axis=0)
    if NORMALISE:
        weight = weight / tl.maximum(tl.sum(weight, axis=0), floor)
    if SCALED:
        weight *= tl.load(scales + chosen, mask=slot < TOP_K, other=0.0)
    tl.store(ids + token * TOP_K + slot, chosen, mask=slot < TOP_K)
    tl.store(weights + token * TOP_K + slot, weight * scale, mask=slot < TOP_K)
