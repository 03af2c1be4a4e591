"""A model on a machine: each device's ledger, the verdict, and what follows from them.

`engine.plan.planner` makes a plan, `engine.plan.report` says it in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.common.units import byte_size, count
from engine.plan.context import RESERVE
from engine.plan.footprint import CHUNK, workspace_bytes
from engine.plan.placement import Placement
from engine.protocol import RuntimeName
from engine.spec.spec import Group, LayerKind, ModelSpec

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

KV, WINDOWS, STATES = "KV cache", "sliding windows", "recurrent states"
MEMORIES: dict[LayerKind, str] = {"full": KV, "window": WINDOWS, "recurrent": STATES}
"""What layers of each kind remember a sequence by."""
WORKSPACE, RESERVED = "workspace", "reserve"


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
    runtime: RuntimeName
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
        return (
            self.verdict
            if self.fits
            else f"short by {byte_size(self.short_bytes)} of {self.short_of}"
        )

    @property
    def weights_bytes(self) -> int:
        """Bytes of weights on all devices."""
        ours = {*MEMORIES.values(), WORKSPACE, RESERVED}
        return sum(s.bytes for d in self.devices for s in d.segments if s.label not in ours)


def ram_ledger(
    total: int,
    weights: Mapping[Group, int],
    memories: Mapping[LayerKind, int],
    spec: ModelSpec,
    more: int = 0,
    chunk: int = CHUNK,
) -> DevicePlan:
    """RAM's ledger. The loader keeps `RESERVE` free; what of it is not work space is the reserve.

    `more` bytes of work space are another device's; passes have up to `chunk` tokens.
    """
    work = workspace_bytes(spec, chunk) + more
    return DevicePlan(
        "RAM",
        "RAM",
        total,
        segments(weights, memories, work, max(0, RESERVE - work)),
    )


def segments(
    weights: Mapping[Group, int], memories: Mapping[LayerKind, int], work: int, reserve: int
) -> tuple[Segment, ...]:
    """A ledger's parts that are not empty, in its order."""
    parts = [(label, weights.get(group, 0)) for group, label in LABELS.items()]
    parts += [(label, memories.get(kind, 0)) for kind, label in MEMORIES.items()]
    parts += [(WORKSPACE, work), (RESERVED, reserve)]
    return tuple(Segment(label, count) for label, count in parts if count)


def window_words(spec: ModelSpec) -> list[str]:
    """That some layers see a window only, and what follows for the KV cache; nothing where none does."""
    if spec.windowed is None:
        return []
    of = f"{sum(spec.windows)} of {spec.layers} layers see the last {count(spec.windowed.window)} tokens"
    return [f"{of} only: their KV cache does not grow with the context"]


def expert_count(spec: ModelSpec) -> int:
    """Routed experts over all layers."""
    return spec.moe_layers * spec.moe.experts if spec.moe is not None else 0
