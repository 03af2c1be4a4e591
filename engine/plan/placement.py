"""Which layers go on which GPU, and how many routed experts of each layer beside them.

Pure arithmetic over bytes. A layer's fixed part (attention, norms, router, shared experts, dense FFN,
KV cache) goes to a GPU or, where VRAM does not hold all of them, the first layers stay on the CPU
whole. What is left of the VRAM is slots for routed experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kernels.sizes import PROMPT_CHUNK


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """Where one layer is computed."""

    gpu: int | None
    """Number of the GPU in `Hardware.gpus`, as CUDA counts them in PCI order; None: the whole layer is
    on the CPU, with its KV cache."""
    experts: int = 0
    """Slots for routed experts on that GPU. As many as the model has experts: the layer's experts are
    not in RAM at all; fewer: RAM holds all of them, since residency adapts while the model runs."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model goes: its layers in order, the last with the output. The embedding is in RAM."""

    layers: tuple[LayerPlace, ...]
    context: int
    """Tokens of KV cache that there is room for."""
    kv: Literal["f16", "q8"]
    """How the KV cache is kept."""
    chunk: int = PROMPT_CHUNK
    """Most tokens of a prompt in one pass, where experts stream; else `PROMPT_CHUNK`."""

    @property
    def on_cpu(self) -> int:
        """Layers that the CPU computes whole: the first ones."""
        return sum(layer.gpu is None for layer in self.layers)

    def whole(self, experts: int) -> bool:
        """Whether GPUs hold all that computes of a model with so many routed experts over all layers."""
        return not self.on_cpu and sum(layer.experts for layer in self.layers) >= experts

    @property
    def gpus(self) -> tuple[int, ...]:
        """GPUs that hold layers, in the order in which layers pass through them."""
        return tuple(dict.fromkeys(p.gpu for p in self.layers if p.gpu is not None))


class LayerBytes(NamedTuple):
    """What one layer takes."""

    fixed: int
    """On a GPU, but for routed experts."""
    expert: int = 0
    """One routed expert on a GPU."""
    experts: int = 0
    """Routed experts; 0: it has a dense FFN."""
    host_experts: int = 0
    """All of its routed experts in RAM."""


class Room(NamedTuple):
    """Bytes for weights and KV cache on one GPU."""

    gpu: int
    bytes: int


def place_layers(
    layers: Sequence[LayerBytes], output: int, rooms: Sequence[Room], ram: int
) -> tuple[LayerPlace, ...]:
    """A place for every layer; the last one's GPU takes `output` bytes more.

    `ram` bytes are there for routed experts: where they are too few, layers whose experts are wholly in
    VRAM come first. Where VRAM holds no layer, all of them are on the CPU.
    """
    everything = [layer.fixed + layer.experts * layer.expert for layer in layers]
    whole = [layer.experts for layer in layers]
    at = _gather(everything, output, rooms)
    if at is not None:
        return _places(at, whole, rooms)
    fixed = [layer.fixed for layer in layers]
    sizes = [room.bytes for room in rooms]
    at = pack(fixed, output, sizes)
    if at and at[0] is None:
        return _places(at, [0] * len(layers), rooms)
    slots = _slots(layers, output, sizes, ram)
    at = pack(_taken(layers, slots), output, sizes)
    return _places(at, _fill(layers, slots, at, output, sizes), rooms)


def pack(sizes: Sequence[int], output: int, rooms: Sequence[int]) -> list[int | None]:
    """A room for each of the last layers that fit, from the last layer and the last room on.

    Layers of a room are neighbours; None for those that found none.
    """
    at: list[int | None] = [None] * len(sizes)
    room = len(rooms) - 1
    left = rooms[room] if rooms else 0
    for layer in range(len(sizes) - 1, -1, -1):
        need = sizes[layer] + (output if layer == len(sizes) - 1 else 0)
        while room >= 0 and left < need:
            room -= 1
            left = rooms[room] if room >= 0 else 0
        if room < 0:
            break
        at[layer] = room
        left -= need
    return at


def fits_whole(layers: Sequence[LayerBytes], output: int, rooms: Sequence[Room]) -> bool:
    """Whether all layers with all of their experts have room."""
    sizes = [layer.fixed + layer.experts * layer.expert for layer in layers]
    return pack(sizes, output, [room.bytes for room in rooms])[0] is not None


def _gather(sizes: list[int], output: int, rooms: Sequence[Room]) -> list[int | None] | None:
    """Rooms for all layers: the largest alone where it has room, else all in proportion; or None."""
    room = [room.bytes for room in rooms]
    total = sum(sizes) + output
    if not room or sum(room) < total:
        return None
    roomiest = room.index(max(room))
    if room[roomiest] >= total:
        return [roomiest] * len(sizes)
    for part in range(1, _PARTS + 1):
        at = pack(sizes, output, [space * part // _PARTS for space in room])
        if at[0] is not None:
            return at
    return None


_PARTS = 64


def _slots(layers: Sequence[LayerBytes], output: int, rooms: Sequence[int], ram: int) -> list[int]:
    """Slots of each layer: all for as many of the last layers as RAM has no room for, then as many as
    all of the others can have alike."""
    routed = [number for number, layer in enumerate(layers) if layer.experts]
    most = max((layer.experts for layer in layers), default=0)

    def slots(whole: int, others: int) -> list[int]:
        full = set(routed[len(routed) - whole :])
        return [
            layer.experts if number in full else min(others, layer.experts)
            for number, layer in enumerate(layers)
        ]

    def fits(whole: int, others: int) -> bool:
        return pack(_taken(layers, slots(whole, others)), output, rooms)[0] is not None

    needed, missing = 0, sum(layer.host_experts for layer in layers) - ram
    while missing > 0 and needed < len(routed):
        needed += 1
        missing -= layers[routed[-needed]].host_experts
    whole = largest(needed, lambda count: fits(count, 0))
    return slots(whole, largest(most, lambda count: fits(whole, count)))


def largest(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest count up to `limit` that fits; 0 is taken to fit."""
    low = 0
    while low < limit:
        middle = (low + limit + 1) // 2
        if fits(middle):
            low = middle
        else:
            limit = middle - 1
    return low


def _fill(
    layers: Sequence[LayerBytes],
    slots: list[int],
    at: Sequence[int | None],
    output: int,
    rooms: Sequence[int],
) -> list[int]:
    """What is left in a room becomes slots of its own layers, first alike, then the smallest experts."""
    out = list(slots)
    for room, space in enumerate(rooms):
        mine = [number for number, where in enumerate(at) if where == room]
        left = space - sum(_taken([layers[n] for n in mine], [out[n] for n in mine]))
        left -= output if at[-1] == room else 0
        short = sorted(
            (n for n in mine if out[n] < layers[n].experts), key=lambda n: layers[n].expert
        )
        round_bytes = sum(layers[n].expert for n in short)
        if not round_bytes:
            continue
        rounds = min(left // round_bytes, *(layers[n].experts - out[n] for n in short))
        for n in short:
            out[n] += rounds
        left -= rounds * round_bytes
        for n in short:
            if out[n] < layers[n].experts and layers[n].expert <= left:
                out[n] += 1
                left -= layers[n].expert
    return out


def _taken(layers: Sequence[LayerBytes], slots: Sequence[int]) -> list[int]:
    """Bytes of each layer on its GPU."""
    return [layer.fixed + count * layer.expert for layer, count in zip(layers, slots, strict=True)]


def _places(
    at: Sequence[int | None], slots: Sequence[int], rooms: Sequence[Room]
) -> tuple[LayerPlace, ...]:
    return tuple(
        LayerPlace(None) if room is None else LayerPlace(rooms[room].gpu, count)
        for room, count in zip(at, slots, strict=True)
    )
