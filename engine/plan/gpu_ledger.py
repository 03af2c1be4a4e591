"""One model on a machine's GPUs, for any context: what has room, and each device's ledger.

`engine.plan.placement` says where layers go, `engine.plan.gpu_planner` which context is chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.machine.types import Gpu, Hardware
from engine.plan.context import CONTEXT_STEP, RESERVE
from engine.plan.footprint import CHUNK, workspace_bytes
from engine.plan.gpu_footprint import (
    HOST,
    fixed_bytes,
    layer_memory_bytes,
    prompt_chunk,
    reserve_bytes,
    work_bytes,
)
from engine.plan.memory_plan import DevicePlan, ram_ledger, segments
from engine.plan.placement import (
    LayerBytes,
    Placement,
    Room,
    fits_whole,
    largest,
    pack,
    place_layers,
)
from engine.protocol import KvKind
from engine.spec.spec import Group, GroupSize, LayerKind, ModelSpec

USUAL_CONTEXT = 8192
"""A context for which layers move to the CPU if they must; for longer ones they do not, unless asked."""


@dataclass(frozen=True)
class GpuRoom:
    """A model that our engine runs, on a machine of which the GPUs `numbers` can be used."""

    spec: ModelSpec
    hardware: Hardware
    kv: KvKind
    numbers: Sequence[int]

    @property
    def least(self) -> int:
        """The shortest context that is looked at."""
        return min(CONTEXT_STEP, self.spec.context)

    @property
    def gpus(self) -> list[Gpu]:
        """The GPUs that can be used."""
        return [self.hardware.gpus[number] for number in self.numbers]

    @cached_property
    def chunk(self) -> int:
        """Most tokens of a prompt in one pass, where experts stream."""
        return prompt_chunk(self.spec, min((gpu.free for gpu in self.gpus), default=0))

    def work(self, context: int, whole: bool = False) -> int:
        """Work space on each GPU, bytes; a model that is `whole` in VRAM needs less."""
        flash = bool(self.hardware.software.flashinfer or self.hardware.assumed)
        kind = context, flash and self.kv == "f16", not whole
        return work_bytes(self.spec, *kind, CHUNK if whole else self.chunk)

    def rooms(self, context: int, whole: bool = False) -> list[Room]:
        """What each GPU has for weights and KV cache; those that have nothing are left out."""
        work = self.work(context, whole)
        rooms = [
            Room(number, gpu.free - reserve_bytes(gpu) - work)
            for number, gpu in zip(self.numbers, self.gpus, strict=True)
        ]
        return [room for room in rooms if room.bytes > 0]

    @cached_property
    def output(self) -> int:
        """Bytes of the output matrix, or the embedding that is one, and of the output norm."""
        groups = self.spec.groups
        matrix = groups.get("output") or groups.get("embedding") or GroupSize()
        norms = groups.get("norms", GroupSize()).device - sum(
            layer["norms"].device for layer in self.spec.layer_groups if "norms" in layer
        )
        return matrix.device + norms

    @cached_property
    def _weights(self) -> list[LayerBytes]:
        experts = self.spec.moe.experts if self.spec.moe else 0
        out = []
        for groups in self.spec.layer_groups:
            fixed, routed = fixed_bytes(groups), groups.get("experts")
            if routed is None or not experts:
                out.append(LayerBytes(fixed))
            else:
                one = -(-routed.device // experts)
                out.append(LayerBytes(fixed, one, experts, routed.resident))
        return out

    def layers(self, context: int, whole: bool = False) -> list[LayerBytes]:
        """What each layer takes, its KV cache in its fixed part; of a model that is `whole` in VRAM or is not."""
        spec, chunk = self.spec, CHUNK if whole else self.chunk
        return [
            layer._replace(
                fixed=layer.fixed + layer_memory_bytes(spec, number, context, self.kv, chunk)
            )
            for number, layer in enumerate(self._weights)
        ]

    def on_cpu(self, context: int) -> int:
        """Layers that no GPU has room for."""
        fixed = [layer.fixed for layer in self.layers(context)]
        at = pack(fixed, self.output, [room.bytes for room in self.rooms(context)])
        return sum(room is None for room in at)

    @cached_property
    def usual_on_cpu(self) -> int:
        """Layers that no GPU has room for with a context one can talk in, else with the shortest."""
        usual = self.on_cpu(min(USUAL_CONTEXT, self.spec.context))
        return usual if usual < self.spec.layers else self.on_cpu(self.least)

    def whole(self, context: int) -> bool:
        """Whether VRAM holds all of the model."""
        layers = self.layers(context, whole=True)
        return fits_whole(layers, self.output, self.rooms(context, whole=True))

    @cached_property
    def longest(self) -> int:
        """The longest context that keeps as many layers on GPUs as a usual one, and fits into RAM
        if any does."""

        def keeps(context: int) -> bool:
            return self.on_cpu(context) <= self.usual_on_cpu

        def in_ram(context: int) -> bool:
            return not self.ram(self.place(context)).short

        most = largest(self.spec.context, keeps)
        if in_ram(most) or not in_ram(self.least):
            return most
        return largest(most, in_ram)

    def place(self, context: int) -> Placement:
        """Where the layers go."""
        memory, whole = self.hardware.memory, self.whole(context)
        chunk = CHUNK if whole else self.chunk
        work = max(RESERVE, workspace_bytes(self.spec, chunk) + HOST)
        ram = memory.available - work - _resident(self.spec.groups, "embedding")
        places = place_layers(
            self.layers(context, whole),
            self.output,
            self.rooms(context, whole),
            ram if memory.available else 1 << 62,
        )
        return Placement(places, context, self.kv, chunk)

    def ram(self, placement: Placement) -> DevicePlan:
        """RAM's ledger: the embedding, layers of the CPU, and experts that are not wholly in VRAM."""
        spec, on_cpu = self.spec, placement.on_cpu
        weights: dict[Group, int] = {"embedding": _resident(spec.groups, "embedding")}
        experts = spec.moe.experts if spec.moe else 0
        for place, layer in zip(placement.layers, spec.layer_groups, strict=True):
            for group in layer:
                if place.gpu is None or (group == "experts" and place.experts < experts):
                    weights[group] = weights.get(group, 0) + _resident(layer, group)
        memories = self._memories(range(on_cpu), placement, placement.kv)
        free, chunk = self.hardware.memory.available, placement.chunk
        return ram_ledger(free, weights, memories, spec, HOST, chunk)

    def _memories(
        self, layers: Iterable[int], placement: Placement, kv: KvKind
    ) -> Mapping[LayerKind, int]:
        """Bytes of what these layers remember, by their kinds."""
        sizes: Counter[LayerKind] = Counter()
        for number in layers:
            size = layer_memory_bytes(self.spec, number, placement.context, kv, placement.chunk)
            sizes[self.spec.kind(number)] += size
        return sizes

    def vram(self, placement: Placement, number: int) -> DevicePlan:
        """One GPU's ledger."""
        spec, gpu = self.spec, self.hardware.gpus[number]
        weights: dict[Group, int] = {}
        here: list[int] = []
        for layer, (place, groups, sizes) in enumerate(
            zip(placement.layers, spec.layer_groups, self._weights, strict=True)
        ):
            if place.gpu != number:
                continue
            here.append(layer)
            for group, total in groups.items():
                taken = place.experts * sizes.expert if group == "experts" else total.device
                weights[group] = weights.get(group, 0) + taken
        if placement.layers[-1].gpu == number:
            weights["output"] = self.output
        memories = self._memories(here, placement, self.kv)
        work = self.work(placement.context, self.whole(placement.context))
        parts = segments(weights, memories, work, reserve_bytes(gpu))
        return DevicePlan(self._name(number), "VRAM", gpu.free, parts)

    def _name(self, number: int) -> str:
        """What the GPU is called, with its number where another has the same name."""
        name = self.hardware.gpus[number].name
        alike = sum(gpu.name == name for gpu in self.hardware.gpus)
        return f"{name} #{number}" if alike > 1 else name


def _resident(groups: Mapping[Group, GroupSize], group: Group) -> int:
    size = groups.get(group, GroupSize())
    return size.resident or size.bytes
