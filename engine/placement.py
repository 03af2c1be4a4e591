"""What would go on the GPUs: attention first, then the KV cache, then whole experts.

Pure arithmetic. The GPUs compute every layer's attention, norms, router, shared experts and the
output; routed experts stay in RAM except for as many whole ones as the VRAM left over holds. Several
GPUs share the layers by their free memory, each with a ledger of its own. Nothing here runs today.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from engine.context import CONTEXT_STEP, KV_SHARE, MAX_CHOSEN_CONTEXT
from engine.footprint import CHUNK, kv_bytes, weight_bytes
from engine.machine import Gpu, Hardware
from engine.plan import (
    DevicePlan,
    MemoryPlan,
    Verdict,
    expert_count,
    ram_ledger,
    segments,
)
from engine.spec import Group, ModelSpec

PER_LAYER: tuple[Group, ...] = ("attention", "norms", "router", "shared", "other")
"""Groups that always go with their layer; dense FFNs follow as far as they fit."""

GPU_PROCESS = 400 << 20
"""Bytes of a CUDA context and its libraries. Assumed; to be measured where a GPU is."""
SMALL_GPU = 17 << 30
"""A GPU of 16 GB or less; the driver counts a little differently."""


@dataclass(frozen=True, slots=True)
class _Share:
    """One GPU's part: layers `first` to `first + layers - 1`, and what else it holds."""

    gpu: Gpu
    left: int
    """Bytes free after the layers' fixed part, the KV cache and the output."""
    first: int
    layers: int
    output: int
    dense: int = 0
    """Layers whose dense FFN is here."""
    experts: int = 0
    """Whole routed experts."""


def reserve_bytes(gpu: Gpu) -> int:
    """VRAM that stays free: max(512 MiB, 3 %), and 1 GiB on small GPUs that draw the screen."""
    least = 1 << 30 if gpu.display and gpu.total <= SMALL_GPU else 512 << 20
    return max(least, gpu.total * 3 // 100)


def gpu_work_bytes(spec: ModelSpec) -> int:
    """VRAM for the CUDA context and the buffers of one chunk."""
    width = spec.hidden * 8 + spec.heads * (spec.head_dim + spec.value_dim) * 2 + spec.ffn * 2
    if spec.moe is not None:
        width += spec.moe.shared_width * 2 + spec.moe.top_k * spec.hidden
    return GPU_PROCESS + CHUNK * width * 4 + spec.vocab * 4


def place(
    spec: ModelSpec, hardware: Hardware, context: int | None
) -> tuple[MemoryPlan | None, str]:
    """The plan with the machine's GPUs, or None and why there is none."""
    if not spec.hybrid:
        return None, "llama.cpp runs this model, and ktchat runs llama.cpp on the CPU"
    weights = weight_bytes(spec)
    most = _largest(spec, hardware, weights)
    if most < 1:
        return None, "The GPU is too small for this model's attention"
    tokens = context if context is not None else _chosen(spec, hardware, most)
    shares = _shares(spec, hardware.gpus, weights, tokens)
    if shares is None:
        return None, f"The GPU is too small for a context of {tokens} tokens; {most} fit"
    return _plan(spec, hardware, weights, _fill(spec, weights, shares), tokens, most), ""


def _chosen(spec: ModelSpec, hardware: Hardware, most: int) -> int:
    """As on the CPU: at most a quarter of the free VRAM, 32768, and what the model was trained for."""
    quarter = hardware.vram_free // KV_SHARE // max(1, spec.kv_bytes_per_token)
    fitting = min(MAX_CHOSEN_CONTEXT, most, quarter)
    return min(spec.context, most, max(1, fitting // CONTEXT_STEP) * CONTEXT_STEP)


def _largest(spec: ModelSpec, hardware: Hardware, weights: dict[Group, int]) -> int:
    """The longest context that fits in VRAM beside what must be there; found by halving."""
    low, high = 0, spec.context
    while low < high:
        middle = (low + high + 1) // 2
        if _shares(spec, hardware.gpus, weights, middle) is None:
            high = middle - 1
        else:
            low = middle
    return low


def _shares(
    spec: ModelSpec, gpus: Sequence[Gpu], weights: dict[Group, int], context: int
) -> list[_Share] | None:
    """Layers for each GPU, in order, by its free bytes; None when they do not all have room."""
    budgets = [gpu.free - reserve_bytes(gpu) - gpu_work_bytes(spec) for gpu in gpus]
    usable = [(gpu, budget) for gpu, budget in zip(gpus, budgets, strict=True) if budget > 0]
    if not usable:
        return None
    output = weights.get("output", 0) or weights.get("embedding", 0)
    layer = _layer_bytes(spec, weights, context)
    room = [budget for _, budget in usable]
    home = room.index(max(room))  # of the output
    room[home] -= output
    most = [max(0, space) // layer for space in room]
    if sum(most) < spec.layers or room[home] < 0:
        return None
    shares, first = [], 0
    counts = _apportion(spec.layers, room, most)
    for index, ((gpu, _), space, count) in enumerate(zip(usable, room, counts, strict=True)):
        if count or index == home:
            here = output if index == home else 0
            shares.append(_Share(gpu, space - count * layer, first, count, here))
        first += count
    return shares


def _layer_bytes(spec: ModelSpec, weights: dict[Group, int], context: int) -> int:
    """Bytes of one layer with its share of the KV cache, rounded up."""
    total = sum(weights.get(group, 0) for group in PER_LAYER) + kv_bytes(spec, context)
    return max(1, -(-total // spec.layers))


def _apportion(layers: int, room: Sequence[int], most: Sequence[int]) -> list[int]:
    """`layers` split in proportion to `room`, none above its `most`."""
    total = max(1, sum(max(0, space) for space in room))
    counts = [
        min(limit, layers * max(0, space) // total) for space, limit in zip(room, most, strict=True)
    ]
    for _ in range(layers - sum(counts)):
        # The next layer goes where most is left.
        index = max(
            (i for i in range(len(counts)) if counts[i] < most[i]),
            key=lambda i: room[i] - counts[i] * total // layers,
        )
        counts[index] += 1
    return counts


def _fill(spec: ModelSpec, weights: dict[Group, int], shares: list[_Share]) -> list[_Share]:
    """What is left of each GPU takes dense FFNs, then whole experts, of its own layers."""
    dense_layers = spec.layers - spec.moe_layers
    dense = -(-weights.get("dense", 0) // max(1, dense_layers))
    expert = -(-weights.get("experts", 0) // max(1, expert_count(spec)))
    out = []
    for share in shares:
        here = max(0, min(dense_layers, share.first + share.layers) - share.first)
        blocks = min(here, share.left // dense) if dense else 0
        left = share.left - blocks * dense
        whole = (share.layers - here) * (spec.moe.experts if spec.moe else 0)
        experts = min(whole, left // expert) if expert else 0
        out.append(dataclasses.replace(share, dense=blocks, experts=experts))
    return out


def _plan(
    spec: ModelSpec,
    hardware: Hardware,
    weights: dict[Group, int],
    shares: list[_Share],
    context: int,
    most: int,
) -> MemoryPlan:
    ledgers = [_ledger(spec, weights, share, context) for share in shares]
    placed = {
        group: sum(part.get(group, 0) for part in (_weights(spec, weights, s) for s in shares))
        for group in ("dense", "experts")
    }
    rest: dict[Group, int] = {"embedding": weights.get("embedding", 0)}
    rest["dense"] = weights.get("dense", 0) - placed["dense"]
    rest["experts"] = weights.get("experts", 0) - placed["experts"]
    ram = ram_ledger(hardware.memory.available, rest, 0, spec)
    everything = not rest["dense"] and not rest["experts"]
    verdict: Verdict = "does not fit" if ram.short else "GPU" if everything else "hybrid"
    return MemoryPlan(
        model=spec.name,
        quantisation=spec.quantisation,
        machine=hardware.name,
        verdict=verdict,
        devices=(*ledgers, ram),
        context=context,
        max_context=most,
        runtime="hybrid",
        experts_on_gpu=sum(share.experts for share in shares),
        experts=expert_count(spec),
        why=(_why(verdict, spec, sum(share.experts for share in shares)),),
        assumed=hardware.assumed,
        runs_today=False,
    )


def _weights(spec: ModelSpec, weights: dict[Group, int], share: _Share) -> dict[Group, int]:
    """Bytes of a GPU's weights; over all GPUs each group sums to the whole of it."""
    out = {
        group: _span(weights.get(group, 0), share.first, share.layers, spec.layers)
        for group in PER_LAYER
    }
    dense_layers = spec.layers - spec.moe_layers
    out["dense"] = _span(weights.get("dense", 0), share.first, share.dense, dense_layers)
    total = expert_count(spec)
    before = max(0, share.first - dense_layers) * (spec.moe.experts if spec.moe else 0)
    out["experts"] = _span(weights.get("experts", 0), before, share.experts, total)
    out["output"] = share.output
    return out


def _span(total: int, first: int, count: int, of: int) -> int:
    """Bytes of parts `first` to `first + count - 1` of `of` equal ones, without a rest."""
    return total * (first + count) // max(1, of) - total * first // max(1, of)


def _ledger(spec: ModelSpec, weights: dict[Group, int], share: _Share, context: int) -> DevicePlan:
    cache = _span(kv_bytes(spec, context), share.first, share.layers, spec.layers)
    return DevicePlan(
        share.gpu.name,
        "VRAM",
        share.gpu.free,
        segments(
            _weights(spec, weights, share), cache, gpu_work_bytes(spec), reserve_bytes(share.gpu)
        ),
    )


def _why(verdict: Verdict, spec: ModelSpec, experts: int) -> str:
    total = expert_count(spec)
    if verdict == "GPU":
        return "Everything but the embedding fits into VRAM"
    if not total:
        return "VRAM does not hold all of the dense FFNs: the rest stays in RAM"
    return f"VRAM holds {experts} of {total} routed experts: the others stay in RAM"
