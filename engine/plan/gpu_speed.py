"""How fast a model will be on GPUs and CPU together, and what limits it.

Decoding: each GPU reads its layers; then the CPU reads the experts that are not in slots, and the GPU meanwhile
those that are, and ahead into its L2 cache what it multiplies by next. No locality is assumed: an expert is in a slot
as often as there are slots. Prefilling: a chunk's other experts are computed by the CPU, or stream to the GPU
beside its products and in longer chunks, whichever takes less time. A token's time is bytes over bandwidth plus nodes
times what one takes. None of this has been measured on a GPU; what is assumed is named so, and figures of real runs
replace it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.common.units import gb_s
from engine.machine.types import Gpu, Hardware
from engine.plan.gpu_footprint import FIXED, attention_work, layer_read_bytes
from engine.plan.placement import LayerPlace, Placement
from engine.plan.speed import (
    DECODE_AT,
    DECODE_EFFICIENCY,
    GOPS_PER_CORE,
    LAYER_SECONDS,
    PROMPT,
    UNMEASURED,
    Speed,
    recorded,
)
from engine.protocol import Computed
from engine.spec.spec import GroupSize, ModelSpec

GPU_EFFICIENCY = 0.9
"""Part of a GPU's reading speed that products reach, nodes apart. Assumed: their instructions leave room for more."""
NODE_SECONDS = 1.85e-6
"""Time that a small node of a graph takes besides reading. Assumed: 1.7 to 2 us; `make gpu-check` measures it."""
DEPENDENT_NODE_SECONDS = 1.2e-6
"""The same where kernels are launched before the one before has ended (`kernels.gpu.dependents`). Assumed: so
launched, a token of gpt-oss-20b took llama.cpp 0.14 to 0.35 ms less (github.com/ggml-org/llama.cpp/pull/22522), which
is 0.4 to 0.9 us for each of some 400 kernels; `make gpu-check` measures it."""
DEPENDENT_COMPUTE = 9.0
"""Compute capability from which on they are."""
LAYER_NODES, EXPERT_NODES, REQUEST_NODES = 6, 2, 1
"""Nodes of a captured layer with routed experts: of its fixed part, of experts that the GPU has, and a wait where the
host computes some. Counted (tests/kernels/gpu/test_nodes.py)."""
JOIN_SECONDS = 0.8e-6
"""What the last program of a launch adds that goes on with the others' results: a router's, which chooses. Assumed."""
HAND_OVER_SECONDS = 6e-6
"""A layer's way from GPU to CPU and back, or between GPUs. Assumed."""
L2_BYTES = {8.0: 40 << 20, 8.6: 3 << 20, 8.9: 24 << 20, 9.0: 50 << 20, 12.0: 24 << 20}
"""L2 cache by compute capability, of the least desktop or server GPU that has it; others: none."""
L2_SHARE = 0.75
"""Part of it that is filled ahead (`kernels.gpu.memory.read_ahead`)."""
L2_SPEED = 3.0
"""How much faster than from VRAM products read what lies in it. Assumed: an RTX 4090's gives five times as much;
`make gpu-check` measures it."""
PCIE_EFFICIENCY = 0.8
"""Part of a link's speed that copies from pinned memory reach. Assumed."""
OPS_PER_BYTE = 40.0
"""Operations on tensor cores for each byte that the GPU's memory could read meanwhile: an RTX 4090 has
160 in float16, an RTX 3090 76; products with quantised weights reach a part of that. Assumed."""


OVERLAP = 0.95
"""Part of max(copies, products) that a streamed chunk reaches: tests/support/prompt_timeline.py, simulated."""


class _Time(NamedTuple):
    seconds: float
    words: str


@dataclass
class _Work:
    """What one token reads, and a chunk of a prompt computes."""

    spec: ModelSpec
    gpu_layers: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Numbers of those on each GPU."""
    gpu_bytes: Counter[int] = field(default_factory=Counter)
    ahead_bytes: Counter[int] = field(default_factory=Counter)
    """Of them, what comes into the L2 cache while the CPU computes."""
    beside_bytes: Counter[int] = field(default_factory=Counter)
    """Not of them: experts in slots of layers whose others the CPU reads meanwhile."""
    beside_seconds: float = 0.0
    """What the nodes of those take."""
    host_bytes: float = 0.0
    other_seconds: float = 0.0
    hand_overs: int = 0
    gpu_parameters: Counter[int] = field(default_factory=Counter)
    """Of layers and experts that are on the GPU."""
    host_parameters: float = 0.0
    """Of layers that are on the CPU."""
    missed_parameters: float = 0.0
    """Of experts that a token uses and that are not on the GPU of their layer."""
    missed_bytes: float = 0.0
    """Of all such experts, packed."""


def share_of_bound(spec: ModelSpec, hardware: Hardware, placement: Placement) -> float:
    """Predicted speed of decoding over what reading alone allows: of GPUs, and then of RAM and slots beside it."""
    work = _work(spec, hardware, placement)

    def reading(counts: Counter[int]) -> float:
        return sum(
            count / (hardware.gpus[number].read_gb_s or 1.0) for number, count in counts.items()
        )

    host = work.host_bytes / (hardware.memory.best_read_gb_s or 1.0)
    bound = reading(work.gpu_bytes) + max(host, reading(work.beside_bytes))
    return bound / 1e9 / _total(_decode(hardware, work))


def predict_placed(
    spec: ModelSpec, hardware: Hardware, placement: Placement, device: Computed
) -> Speed:
    """The speed of a model where `placement` puts it; measured figures of this machine come first."""
    work = _work(spec, hardware, placement)
    past = {} if hardware.assumed else recorded(spec, hardware, device)
    unknown = _unknown(hardware, placement, work)
    decode = _decode(hardware, work)
    tokens, prefill = _prefill(hardware, work, placement.chunk)
    return Speed(
        decode_tok_s=past.get("decode_tok_s") or (None if unknown else 1 / _total(decode)),
        prefill_tok_s=past.get("prefill_tok_s") or (None if unknown else tokens / _total(prefill)),
        bound_words=unknown or max(decode).words,
        prefill_bound_words=unknown or max(prefill).words,
        measured="decode_tok_s" in past,
        prefill_measured="prefill_tok_s" in past,
    )


def _total(times: Iterable[_Time]) -> float:
    return sum(time.seconds for time in times)


def _unknown(hardware: Hardware, placement: Placement, work: _Work) -> str:
    for number in placement.gpus:
        if not hardware.gpus[number].read_gb_s:
            return f"the memory speed of {hardware.gpus[number].name} is not known"
    return UNMEASURED if work.host_bytes and not hardware.memory.best_read_gb_s else ""


def _decode(hardware: Hardware, work: _Work) -> list[_Time]:
    bandwidth = hardware.memory.best_read_gb_s or 1.0
    host = work.host_bytes / (bandwidth * 1e9 * DECODE_EFFICIENCY["native"])
    beside = work.beside_seconds
    times = []
    seconds = work.hand_overs * HAND_OVER_SECONDS
    times.append(
        _Time(seconds, "limited by hand-overs between GPU and CPU (assumed, not measured)")
    )
    for number, count in work.gpu_bytes.items():
        speed = hardware.gpus[number].read_gb_s or 1.0
        words = f"limited by VRAM bandwidth: {gb_s(speed)}"
        count -= round(work.ahead_bytes[number] * (1 - 1 / L2_SPEED))
        times.append(_Time(count / (speed * 1e9 * GPU_EFFICIENCY), words))
        beside += work.beside_bytes[number] / (speed * 1e9 * GPU_EFFICIENCY)
    seconds = work.other_seconds + max(0.0, beside - host)
    times.append(_Time(seconds, "limited by launches (assumed, not measured)"))
    return [*times, _Time(host, f"limited by RAM bandwidth: {gb_s(bandwidth)}")]


def _prefill(hardware: Hardware, work: _Work, chunk: int) -> tuple[int, list[_Time]]:
    """A chunk of a prompt: its tokens, `PROMPT` or where experts stream `chunk`, and its times."""
    ways = [(PROMPT, _computed_apart(hardware, work))]
    if work.missed_parameters and all(hardware.gpus[n].pcie_gb_s for n in work.gpu_parameters):
        ways.append((chunk, _streamed(hardware, work, chunk)))
    return min(ways, key=lambda way: _total(way[1]) / way[0])


def _computed_apart(hardware: Hardware, work: _Work) -> list[_Time]:
    """GPUs compute what they hold, the CPU all else."""
    parameters = work.host_parameters + work.missed_parameters
    gpus = [_products(hardware, work, number, PROMPT) for number in work.gpu_parameters]
    return [_on_cpu(hardware, parameters, PROMPT), *gpus]


def _streamed(hardware: Hardware, work: _Work, tokens: int) -> list[_Time]:
    """Experts come to their GPUs beside the products. GPUs take their own layers one after the other."""
    numbers = list(work.gpu_parameters)
    missed = work.missed_parameters / len(numbers)
    products = [_products(hardware, work, number, tokens, missed) for number in numbers]
    link = min(hardware.gpus[number].pcie_gb_s for number in numbers)
    copies = work.missed_bytes / (link * 1e9 * PCIE_EFFICIENCY)
    longer = max(_Time(copies, f"limited by PCIe: {gb_s(link)}"), *products)
    bound = max(copies, _total(products)) / OVERLAP
    return [_on_cpu(hardware, work.host_parameters, tokens), _Time(bound, longer.words)]


def _on_cpu(hardware: Hardware, parameters: float, tokens: int) -> _Time:
    cpu = hardware.cpu
    gops = cpu.cores * GOPS_PER_CORE["native"][cpu.isa] * 1e9
    words = f"limited by {cpu.cores} core{'s' * (cpu.cores != 1)}"
    return _Time(2 * tokens * parameters / gops, words)


def _products(
    hardware: Hardware, work: _Work, number: int, tokens: int, more: float = 0.0
) -> _Time:
    """A GPU's products with what it holds, and with `more` parameters that come to it; attention with them."""
    gpu, parameters = hardware.gpus[number], work.gpu_parameters[number] + more
    parameters += sum(attention_work(work.spec, n, tokens) for n in work.gpu_layers[number])
    rate = (gpu.read_gb_s or 1.0) * 1e9
    seconds = max(2 * tokens * parameters / (rate * OPS_PER_BYTE), work.gpu_bytes[number] / rate)
    return _Time(seconds, f"limited by {gpu.name}'s arithmetic (assumed, not measured)")


def _work(spec: ModelSpec, hardware: Hardware, placement: Placement) -> _Work:
    work, behind_host = _Work(spec), False
    position = min(DECODE_AT, placement.context // 2)
    before = placement.layers[0].gpu
    layers = zip(placement.layers, spec.layer_groups, strict=True)
    for number, (place, groups) in enumerate(layers):
        fixed = sum((groups[group] for group in FIXED if group in groups), GroupSize())
        routed = groups.get("experts", GroupSize())
        if place.gpu is None:
            used = _used(spec, routed.parameters)
            work.host_bytes += fixed.resident + _used(spec, routed.resident)
            work.host_bytes += layer_read_bytes(spec, number, position)
            work.host_parameters += fixed.parameters + used
            work.other_seconds += LAYER_SECONDS
        else:
            work.gpu_layers[place.gpu].append(number)
            _add_layer(work, spec, hardware.gpus[place.gpu], place, fixed, routed)
            if behind_host and place.gpu == before:
                work.ahead_bytes[place.gpu] += _fetched(hardware.gpus[place.gpu], fixed.device)
            behind_host = bool(routed.device and spec.moe and place.experts < spec.moe.experts)
            work.gpu_bytes[place.gpu] += layer_read_bytes(spec, number, position, placement.kv)
        work.hand_overs += place.gpu != before
        before = place.gpu
    last = placement.layers[-1].gpu
    if last is not None:
        output = spec.groups.get("output") or spec.groups.get("embedding") or GroupSize()
        work.gpu_bytes[last] += output.device
        if behind_host:
            work.ahead_bytes[last] += _fetched(hardware.gpus[last], output.device)
    return work


def _add_layer(
    work: _Work,
    spec: ModelSpec,
    gpu: Gpu,
    place: LayerPlace,
    fixed: GroupSize,
    routed: GroupSize,
) -> None:
    assert place.gpu is not None
    node = DEPENDENT_NODE_SECONDS if _compute(gpu) >= DEPENDENT_COMPUTE else NODE_SECONDS
    here = place.experts / spec.moe.experts if spec.moe and routed.device else 1.0
    experts = work.gpu_bytes if here == 1 else work.beside_bytes
    work.gpu_bytes[place.gpu] += fixed.device
    experts[place.gpu] += round(here * _used(spec, routed.device))
    work.gpu_parameters[place.gpu] += round(
        fixed.parameters + here * _used(spec, routed.parameters)
    )
    nodes = LAYER_NODES + EXPERT_NODES * (here == 1) + REQUEST_NODES * (here < 1)
    work.other_seconds += nodes * node + JOIN_SECONDS
    if here < 1:
        work.beside_seconds += EXPERT_NODES * (here > 0) * node
        work.hand_overs += 1
        work.host_bytes += (1 - here) * _used(spec, routed.resident)
        work.missed_parameters += (1 - here) * _used(spec, routed.parameters)
        work.missed_bytes += (1 - here) * routed.device


def _compute(gpu: Gpu) -> float:
    return float(gpu.compute) if gpu.usable else 0.0


def _fetched(gpu: Gpu, size: int) -> int:
    """Of a layer's fixed bytes, those that come into the L2 cache while the CPU computes the layer before's."""
    return min(size, int(L2_SHARE * L2_BYTES.get(_compute(gpu), 0)))


def _used(spec: ModelSpec, experts: int) -> float:
    """The part of a layer's routed experts that one token uses."""
    return experts * spec.moe.top_k / spec.moe.experts if spec.moe else 0.0
