"""What a token of a reply read, and where its time went: from what was counted, the plan's model and the measured speed.

Weights that every token uses are read once a pass, an expert once a pass that chose it, the KV cache up to the
position. What a hop takes follows from `engine.plan.speed` and `gpu_speed`; what no hop explains is arithmetic.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.machine.types import Hardware
from engine.plan.gpu_footprint import FIXED, layer_read_bytes
from engine.plan.gpu_speed import GPU_EFFICIENCY, HAND_OVER_SECONDS
from engine.plan.placement import Placement
from engine.plan.speed import DECODE_EFFICIENCY, memory_read_bytes
from engine.protocol import KvKind, RuntimeName
from engine.spec.spec import GroupSize, ModelSpec

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Used:
    """What was counted so far. Rows are the layers that have routed experts, `first_layer` and those behind it."""

    first_layer: int
    top_k: int
    tokens: int
    uses: Counts
    """(layers, experts): tokens that chose each expert."""
    on_device: Counts | None
    """(layers, experts): of these, where the expert was on a GPU; None: none takes part."""
    passes: int
    reads: Counts
    """(layers,): experts that passes read. One is read once for all tokens of a pass, wrong drafts among them."""


class TokenReads:
    """A loaded model: where its weights are, on which machine. `placement` None: all of them are in RAM."""

    def __init__(
        self,
        spec: ModelSpec,
        hardware: Hardware,
        runtime: RuntimeName,
        placement: Placement | None = None,
        kv: KvKind = "f16",
    ) -> None:
        self.spec = spec
        self._placement, self._kv, self._runtime = placement, kv, runtime
        self.ram_gb_s = hardware.memory.best_read_gb_s
        gpus = placement.gpus if placement is not None else ()
        speeds = [hardware.gpus[n].read_gb_s for n in gpus if n < len(hardware.gpus)]
        self.vram_gb_s = min(speeds, default=0.0)
        self._fixed_ram, self._fixed_vram = self._fixed()

    def bytes_per_token(self, position: int, tokens: int, used: Used | None) -> tuple[int, int]:
        """Bytes that a token read on average, of RAM and of VRAM, with a context of `position` tokens.

        `used` None: nothing was counted, and every token was a pass of its own.
        """
        ram, vram = self._memories(position)
        ram, vram = ram + self._fixed_ram, vram + self._fixed_vram
        if used is None or not tokens:
            share = self.spec.moe.top_k / self.spec.moe.experts if self.spec.moe else 0.0
            experts = self.spec.groups.get("experts", GroupSize())
            return round(ram + share * (experts.resident or experts.bytes)), round(vram)
        of_ram, of_vram = self._experts(used)
        a_pass = used.passes / tokens
        return round(a_pass * ram + of_ram / tokens), round(a_pass * vram + of_vram / tokens)

    def hop_seconds(self, ram: int, vram: int, seconds: float) -> tuple[float, ...]:
        """Of a token that read so many bytes and took so many seconds: what each of
        `engine.common.insight.HOPS` took; empty: not known."""
        if (ram and not self.ram_gb_s) or (vram and not self.vram_gb_s) or seconds <= 0:
            return ()
        reading = ram / (self.ram_gb_s * 1e9 * DECODE_EFFICIENCY[self._runtime]) if ram else 0.0
        device = vram / (self.vram_gb_s * 1e9 * GPU_EFFICIENCY) if vram else 0.0
        hops = reading, device, self._hand_overs() * HAND_OVER_SECONDS
        return (*hops, max(0.0, seconds - sum(hops)))

    def _fixed(self) -> tuple[int, int]:
        """Bytes of weights that every token reads: all but routed experts."""
        spec = self.spec
        if self._placement is None:
            routed = spec.groups.get("experts", GroupSize()).bytes
            share = routed * spec.moe.top_k // spec.moe.experts if spec.moe else 0
            return spec.active_bytes_per_token - share, 0
        ram = vram = 0
        for place, groups in zip(self._placement.layers, spec.layer_groups, strict=True):
            fixed = sum((groups[group] for group in FIXED if group in groups), GroupSize())
            if place.gpu is None:
                ram += fixed.resident
            else:
                vram += fixed.device
        output = spec.groups.get("output") or spec.groups.get("embedding") or GroupSize()
        on_gpu = self._placement.layers[-1].gpu is not None
        return ram + (0 if on_gpu else output.resident), vram + (output.device if on_gpu else 0)

    def _memories(self, position: int) -> tuple[int, int]:
        """What a token at a position reads of KV caches and states."""
        spec = self.spec
        if self._placement is None:
            return memory_read_bytes(spec, position, self._kv), 0
        read: Counter[bool] = Counter()
        for number, place in enumerate(self._placement.layers):
            kv = self._kv if place.gpu is not None else "f16"
            read[place.gpu is not None] += layer_read_bytes(spec, number, position, kv)
        return read[False], read[True]

    def _experts(self, used: Used) -> tuple[float, float]:
        """Bytes of experts that were read in all."""
        ram = vram = 0.0
        moe = self.spec.moe
        assert moe is not None
        for row, reads in enumerate(used.reads.tolist()):
            sizes = self._routed(used.first_layer + row)
            there = 0.0
            if used.on_device is not None and (uses := int(used.uses[row].sum())):
                there = int(used.on_device[row].sum()) / uses
            ram += (1 - there) * reads * (sizes.resident or sizes.bytes) / moe.experts
            vram += there * reads * (sizes.device or sizes.bytes) / moe.experts
        return ram, vram

    def _routed(self, layer: int) -> GroupSize:
        if self.spec.layer_groups:
            return self.spec.layer_groups[layer].get("experts", GroupSize())
        every, layers = self.spec.groups.get("experts", GroupSize()), self.spec.moe_layers
        return GroupSize(every.bytes // layers, 0, every.resident // layers, every.device // layers)

    def _hand_overs(self) -> int:
        """A layer's ways from GPU to CPU and back, or between GPUs."""
        if self._placement is None:
            return 0
        layers, experts = self._placement.layers, self.spec.moe.experts if self.spec.moe else 0
        between = sum(a.gpu != b.gpu for a, b in itertools.pairwise(layers))
        served = (
            place.gpu is not None and place.experts < experts and self.spec.is_moe_layer(number)
            for number, place in enumerate(layers)
        )
        return between + sum(served)
