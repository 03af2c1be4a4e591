"""The plan with a machine's GPUs: which of them can be used, the context, and what is said of it.

Opens nothing and asks no driver: what other programs hold is what `Gpu.free` leaves out. Bytes and
ledgers are `engine.plan.gpu_ledger`'s.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.common.units import byte_size, count
from engine.machine.probes.software import gpu_obstacle
from engine.machine.types import Gpu, Hardware, Problem
from engine.plan.context import CONTEXT_STEP, KV_SHARE, MAX_CHOSEN_CONTEXT
from engine.plan.gpu_footprint import layer_kv_row, reserve_bytes
from engine.plan.gpu_ledger import USUAL_CONTEXT, GpuRoom
from engine.plan.gpu_speed import predict_placed
from engine.plan.memory_plan import MemoryPlan, expert_count, window_words
from engine.plan.placement import Placement, largest
from engine.plan.speed import Speed
from engine.protocol import Auto, Computed, KvKind
from engine.spec.spec import ModelSpec


def gpu_plan(
    spec: ModelSpec, hardware: Hardware, context: int | Auto | None, kv: KvKind
) -> MemoryPlan | Problem:
    """The plan with the machine's GPUs, or why there is none, with the command that mends it."""
    problem = obstacle(spec, hardware)
    if problem is not None:
        return problem
    numbers = [number for number, gpu in enumerate(hardware.gpus) if gpu.usable]
    room = GpuRoom(spec, hardware, kv, numbers)
    if room.usual_on_cpu == spec.layers:
        return Problem(f"VRAM has no room for a layer of this model: {_needs(room)}")
    tokens = _choose(room, context)
    if room.on_cpu(tokens) == spec.layers:
        most = largest(spec.context, lambda count: room.on_cpu(count) < spec.layers)
        return Problem(
            f"VRAM has no room for a context of {count(tokens)} tokens: {count(most)} fit"
        )
    return _plan(room, tokens)


def obstacle(spec: ModelSpec, hardware: Hardware) -> Problem | None:
    """Why the machine's GPUs cannot compute this model; None: they can, if they have room."""
    if not spec.native or not spec.layer_groups:
        return Problem("This model runs on llama.cpp, which ktchat uses on the CPU only")
    return gpu_obstacle(hardware)


def others(gpu: Gpu) -> str:
    """`Other programs hold 11.8 GB of RTX 4090 (python 11.6 GB): planned around`; empty: none does."""
    held = sum(user.bytes for user in gpu.users)
    if not held:
        return ""
    names = ", ".join(
        f"{user.name} {byte_size(user.bytes)}" for user in gpu.users[:3] if user.bytes
    )
    return f"Other programs hold {byte_size(held)} of {gpu.name} ({names}): planned around"


def _choose(room: GpuRoom, wanted: int | Auto | None) -> int:
    """What is asked for; "auto": the longest that fits. None: as on the CPU, of the free VRAM a quarter."""
    if isinstance(wanted, int):
        return wanted
    spec, most = room.spec, max(1, room.longest)
    if wanted == "auto":
        return most
    cached = sum(spec.kind(n) == "full" for n in range(room.usual_on_cpu, spec.layers))
    row = cached * layer_kv_row(spec, room.kv)
    quarter = sum(gpu.free for gpu in room.gpus) // KV_SHARE // max(1, row)
    steps = min(MAX_CHOSEN_CONTEXT, most, quarter) // CONTEXT_STEP
    chosen = min(max(1, steps) * CONTEXT_STEP, spec.context)
    least = min(USUAL_CONTEXT, chosen)
    # Rather a shorter context than weights outside of VRAM.
    if room.whole(least) and not room.whole(chosen):
        steps = (chosen - least) // CONTEXT_STEP
        return least + CONTEXT_STEP * largest(
            steps, lambda count: room.whole(least + CONTEXT_STEP * count)
        )
    return chosen


def _plan(room: GpuRoom, context: int) -> MemoryPlan:
    spec, hardware = room.spec, room.hardware
    placement = room.place(context)
    ram = room.ram(placement)
    slots, experts = sum(layer.experts for layer in placement.layers), expert_count(spec)
    computed: Computed = "GPU" if placement.whole(experts) else "hybrid"
    fits, longest = not ram.short, room.longest
    if not fits and room.ram(room.place(longest)).short:
        longest = 0
    speed = predict_placed(spec, hardware, placement, computed) if fits else Speed()
    return MemoryPlan(
        model=spec.name,
        quantisation=spec.quantisation,
        machine=hardware.name,
        verdict=computed if fits else "does not fit",
        devices=(*(room.vram(placement, number) for number in placement.gpus), ram),
        context=context,
        max_context=max(longest, context) if fits else longest,
        runtime="native",
        decode_tok_s=speed.decode_tok_s,
        prefill_tok_s=speed.prefill_tok_s,
        bound_words=speed.bound_words,
        prefill_bound_words=speed.prefill_bound_words,
        measured=speed.measured,
        prefill_measured=speed.prefill_measured,
        experts_on_gpu=slots,
        experts=experts,
        why=tuple(_why(room, placement, computed, slots)),
        assumed=hardware.assumed,
        placement=placement,
    )


def _why(room: GpuRoom, placement: Placement, computed: Computed, slots: int) -> Iterator[str]:
    spec, experts = room.spec, expert_count(room.spec)
    if computed == "GPU":
        yield "VRAM holds everything but the embedding table"
    elif placement.on_cpu:
        yield (
            f"VRAM holds {spec.layers - placement.on_cpu} of {spec.layers} layers:"
            f" the first {placement.on_cpu} run on the CPU"
        )
    if experts and computed != "GPU":
        yield (
            f"VRAM holds {slots} of {experts} routed experts: the CPU computes the others"
            if slots
            else "VRAM holds no routed experts: the CPU computes them"
        )
        alone = sum(
            spec.moe is not None and p.experts == spec.moe.experts for p in placement.layers
        )
        if alone:
            yield f"The experts of {alone} layers are in VRAM only, so that RAM holds the others"
    yield from window_words(spec)
    if placement.kv == "q8":
        yield "The KV cache is kept in 8 bits"
    if placement.context > spec.context:
        yield f"The model was trained for {count(spec.context)} tokens; beyond, it may fail"
    yield from filter(None, map(others, room.gpus))


def _needs(room: GpuRoom) -> str:
    """What the GPUs have free, what one needs for the last layer, and who holds the rest."""
    least = room.work(room.least) + room.output + room.layers(room.least)[-1].fixed
    parts = [
        f"{gpu.name} has {byte_size(gpu.free)} free and needs {byte_size(least + reserve_bytes(gpu))}"
        for gpu in room.gpus
    ]
    return "; ".join([*parts, *filter(None, map(others, room.gpus))])
