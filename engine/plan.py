"""What goes where, whether it fits, and how fast it will be: arithmetic over a spec and a machine.

Knows the plan of the CPU alone and which plan is the one; that with GPUs is `engine.gpu_plan`'s, speeds
come from `engine.speed`, words from `engine.plan_words`. Imports neither torch nor llama_cpp and opens
nothing, so that a plan is there at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from engine.context import RESERVE, check_context, largest_context, wanted_context
from engine.errors import ON_CPU, RequestError
from engine.footprint import kv_bytes, weight_bytes, workspace_bytes
from engine.gpu_footprint import quantised_kv_obstacle
from engine.machine import Hardware, Problem
from engine.placement import Placement
from engine.protocol import Auto, Device, KvKind
from engine.spec import Group, ModelSpec
from engine.speed import predict

Verdict = Literal["GPU", "hybrid", "CPU", "does not fit"]

LABELS: dict[Group, str] = {
    "attention": "attention",
    "router": "router",
    "shared": "shared experts",
    "dense": "dense FFN",
    "norms": "norms",
    "output": "output",
    "embedding": "embedding",
    "experts": "routed experts",
    "other": "other",
}
"""Groups of tensors in the order of a ledger, and what they are called there."""

KV, WORKSPACE, RESERVED = "KV cache", "workspace", "reserve"


class Segment(NamedTuple):
    """A part of a device's memory."""

    label: str
    bytes: int


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One device's ledger. `total` is what is free for us there, in bytes."""

    name: str
    kind: Literal["RAM", "VRAM"]
    total: int
    segments: tuple[Segment, ...]

    @property
    def used(self) -> int:
        """Bytes of all segments, the reserve too."""
        return sum(segment.bytes for segment in self.segments)

    @property
    def resident(self) -> int:
        """Bytes that are in memory while the model runs: all but the reserve."""
        return sum(segment.bytes for segment in self.segments if segment.label != RESERVED)

    @property
    def short(self) -> int:
        """Bytes that are missing; 0 when everything fits."""
        return max(0, self.used - self.total) if self.total else 0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A model on a machine. Speeds are None when nothing is known that they could follow from."""

    model: str
    quantisation: str
    machine: str
    verdict: Verdict
    devices: tuple[DevicePlan, ...]
    context: int
    """Tokens; what was asked for, else what the engine would choose."""
    max_context: int
    """The longest context that fits, at most what the model was trained for unless more was asked for;
    0: none does."""
    runtime: Literal["hybrid", "llama.cpp"]
    """What would run it."""
    decode_tok_s: float | None = None
    prefill_tok_s: float | None = None
    bound_words: str = ""
    """What limits decoding: `limited by RAM bandwidth: 42 GB/s`."""
    prefill_bound_words: str = ""
    measured: bool = False
    """Decoding was measured with this model on this machine, not predicted."""
    prefill_measured: bool = False
    """The same for reading a prompt."""
    experts_on_gpu: int = 0
    """Routed experts on GPUs, over all layers."""
    experts: int = 0
    """Routed experts over all layers."""
    why: tuple[str, ...] = ()
    """Sentences on how the plan came about."""
    assumed: str = ""
    """Where the machine's numbers come from when it is not this one."""
    placement: Placement | None = None
    """Where each layer goes; None: the CPU computes all of them."""
    no_gpu: str = ""
    """Why the CPU computes although there is a GPU."""
    gpu_fix: str = ""
    """The command that mends that; empty: none does."""

    @property
    def fits(self) -> bool:
        """Whether everything has room."""
        return self.verdict != "does not fit"

    @property
    def short_bytes(self) -> int:
        """Bytes that are missing."""
        return sum(device.short for device in self.devices)

    @property
    def short_of(self) -> str:
        """What is missing: RAM or VRAM; empty when everything fits."""
        return next((device.kind for device in self.devices if device.short), "")

    @property
    def fit_words(self) -> str:
        """`GPU`, `hybrid`, `CPU`, or `short by 12 GB of RAM`."""
        from engine.plan_words import size

        return (
            self.verdict if self.fits else f"short by {size(self.short_bytes)} of {self.short_of}"
        )

    @property
    def weights_bytes(self) -> int:
        """Bytes of weights on all devices."""
        ours = {KV, WORKSPACE, RESERVED}
        return sum(s.bytes for d in self.devices for s in d.segments if s.label not in ours)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON has it, with what follows from it."""
        out = dataclasses.asdict(self)
        out |= {"fits": self.fits, "fit_words": self.fit_words, "words": self.words()}
        out |= {"short_bytes": self.short_bytes, "short_of": self.short_of}
        for device, entry in zip(self.devices, out["devices"], strict=True):
            entry |= {"used": device.used, "short": device.short}
            entry["segments"] = [segment._asdict() for segment in device.segments]
        return out

    def words(self) -> list[str]:
        """The plan in short lines."""
        from engine.plan_words import words

        return words(self)

    def bars(self, width: int = 80) -> list[str]:
        """Where every gigabyte goes, as lines of at most `width` characters."""
        from engine.plan_words import bars

        return bars(self, width)


def make_plan(
    source: ModelSpec,
    hardware: Hardware,
    context: int | Auto | None = None,
    device: Device = "auto",
    kv: KvKind = "f16",
) -> MemoryPlan:
    """The plan for a model on a machine. `context` None takes what the engine would choose, "auto" the
    longest that fits. `device` "auto" takes the GPUs where they can be used and something fits.

    `kv` is a wish for GPUs: on the CPU, and for heads that 8 bits do not suit, the KV cache is in float16,
    and the plan says so. Raises `RequestError` for a context below 1, and for "gpu" where none can be used.
    """
    check_context(context)
    planned, against = None, Problem("")
    in_f16 = "8 bits are for the GPU" if kv == "q8" else ""
    if kv == "q8" and (unfit := quantised_kv_obstacle(source)):
        kv, in_f16 = "f16", unfit
    if not hardware.use_gpus and device == "auto":
        device, against = "cpu", Problem("device is set to cpu" if hardware.gpus else "")
    if device != "cpu" and hardware.gpus:
        from engine.gpu_plan import gpu_plan

        found = gpu_plan(source, hardware, context, kv)
        if isinstance(found, Problem):
            against = found
        elif found.fits or device == "gpu":
            return found if kv == "q8" else _noting(found, in_f16)
        else:
            planned = found
    if device == "gpu":
        why = against.what or "No NVIDIA GPU was found"
        todo = f"Run `{against.fix}`, or use {ON_CPU}" if against.fix else f"Use {ON_CPU}"
        raise RequestError(f"{source.name} cannot run on the GPU", why, todo)
    alone = _noting(_on_cpu(source, hardware, context), in_f16)
    if planned is None:
        return dataclasses.replace(alone, no_gpu=against.what, gpu_fix=against.fix)
    if not alone.fits:
        return planned
    return dataclasses.replace(alone, no_gpu=f"With the GPU it would be {planned.fit_words}")


def _noting(plan: MemoryPlan, in_f16: str) -> MemoryPlan:
    """The plan, with why its KV cache is not in 8 bits although that was wished."""
    if not in_f16:
        return plan
    return dataclasses.replace(plan, why=(*plan.why, f"The KV cache is in float16: {in_f16}"))


def _on_cpu(spec: ModelSpec, hardware: Hardware, context: int | Auto | None) -> MemoryPlan:
    free = hardware.memory.available
    tokens = wanted_context(context, spec, free or 1 << 62)
    ledger = ram_ledger(free, weight_bytes(spec), kv_bytes(spec, tokens), spec)
    fits = not ledger.short
    speed = predict(spec, hardware, tokens)
    longest = min(spec.context, largest_context(spec, free or 1 << 62))
    why = [] if free else ["The size of this machine's memory is not known"]
    if spec.unsupported or not spec.hybrid:
        why.append(
            f"llama.cpp runs it: {spec.unsupported or 'its architecture is not one of ours'}"
        )
    if tokens > spec.context:
        why.append(f"The model was trained for {spec.context} tokens; beyond, it may fail")
    return MemoryPlan(
        model=spec.name,
        quantisation=spec.quantisation,
        machine=hardware.name,
        verdict="CPU" if fits else "does not fit",
        devices=(ledger,),
        context=tokens,
        max_context=max(longest, tokens) if fits else longest,
        runtime="hybrid" if spec.hybrid else "llama.cpp",
        decode_tok_s=speed.decode_tok_s if fits else None,
        prefill_tok_s=speed.prefill_tok_s if fits else None,
        bound_words=speed.bound_words if fits else "",
        prefill_bound_words=speed.prefill_bound_words if fits else "",
        measured=speed.measured and fits,
        prefill_measured=speed.prefill_measured and fits,
        experts=expert_count(spec),
        why=tuple(why),
        assumed=hardware.assumed,
    )


def ram_ledger(
    total: int, weights: Mapping[Group, int], cache: int, spec: ModelSpec, more: int = 0
) -> DevicePlan:
    """RAM's ledger. The loader keeps `RESERVE` free; what of it is not work space is the reserve.

    `more` bytes of work space are another device's.
    """
    work = workspace_bytes(spec) + more
    return DevicePlan(
        "RAM",
        "RAM",
        total,
        segments(weights, cache, work, max(0, RESERVE - work)),
    )


def segments(
    weights: Mapping[Group, int], cache: int, work: int, reserve: int
) -> tuple[Segment, ...]:
    """A ledger's parts that are not empty, in its order."""
    parts = [(label, weights.get(group, 0)) for group, label in LABELS.items()]
    parts += [(KV, cache), (WORKSPACE, work), (RESERVED, reserve)]
    return tuple(Segment(label, count) for label, count in parts if count)


def expert_count(spec: ModelSpec) -> int:
    """Routed experts over all layers."""
    return spec.moe_layers * spec.moe.experts if spec.moe is not None else 0
