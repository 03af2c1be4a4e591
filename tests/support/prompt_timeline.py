"""`python -m tests.support.prompt_timeline`: how well copies and products overlap while experts stream.

The engine's own feed (`kernels.gpu.moe.expert_feed`) over two streams that only add up seconds: a copy begins behind
the one before it and behind the product that read its buffer, a product behind the one before it and behind its
experts' copies. Rates are the plan's: 25 GB/s of PCIe, arithmetic of an RTX 4090.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.plan.gpu_footprint import FIXED, attention_work
from engine.plan.gpu_speed import GPU_EFFICIENCY, OPS_PER_BYTE
from engine.spec.spec import GroupSize, ModelSpec
from kernels.gpu.moe.expert_feed import ExpertFeed, FeedLayer
from kernels.gpu.sizes import STREAM_BUFFERS, buffer_bytes
from tests.support.plans import DEEPSEEK_V3, GPT_OSS, MIXTRAL, QWEN3_30B, QWEN36_35B, spec

LINK, MEMORY = 25e9, 1008e9
"""Bytes a second that PCIe carries and that an RTX 4090's memory is read at."""
TOKENS = (2048, 4096)
RESIDENT = (0.0, 0.25, 0.5)


class Overlap(NamedTuple):
    """A chunk's seconds: of all copies, of all that is computed, and from the first to the end of the last."""

    copies: float
    computing: float
    whole: float

    @property
    def share(self) -> float:
        """Of the bound that is reached."""
        return max(self.copies, self.computing) / self.whole


@dataclass(slots=True)
class Buffer:
    """Free from this second on."""

    read: float = 0.0


def overlap(model: ModelSpec, tokens: int, resident: float, chosen: float = 1.0) -> Overlap:
    """A chunk's timeline, of a model of whose experts this part is on the device, and of the others `chosen`."""
    assert model.moe is not None
    experts, rate = model.moe.experts, MEMORY * OPS_PER_BYTE
    here = int(resident * experts)
    absent = list(range(here, experts))
    used = frozenset(absent[: max(1, round(chosen * len(absent)))])
    numbers = [n for n, layer in enumerate(model.layer_groups) if "experts" in layer]
    groups = [model.layer_groups[n] for n in numbers]
    size = [layer["experts"].device // experts for layer in groups]
    share = model.moe.top_k / experts**2  # of a layer's experts' parameters: one's, for a token
    clock, copies = [0.0, 0.0], 0.0  # of copies, of products

    def fill(layer: int, part: tuple[int, ...], buffer: Buffer) -> float:
        nonlocal copies
        seconds = len(part) * size[layer] / LINK
        clock[0] = max(clock[0], buffer.read) + seconds
        copies += seconds
        return clock[0]

    def compute(parameters: float, size: float) -> float:
        """Seconds of products that read weights of so many bytes once."""
        seconds = max(2 * tokens * parameters / rate, size / (MEMORY * GPU_EFFICIENCY))
        clock[1] += seconds
        return seconds

    layers = [FeedLayer(absent, buffer_bytes(one, experts, tokens) // one) for one in size]
    buffers = [Buffer() for _ in range(STREAM_BUFFERS)]
    feed = ExpertFeed(layers, buffers, fill, lambda job: job())
    feed.start()
    computing = 0.0
    for number, layer in enumerate(groups):
        fixed = sum((layer[group] for group in FIXED if group in layer), GroupSize())
        one = layer["experts"].parameters * share
        computing += compute(
            fixed.parameters + attention_work(model, numbers[number], tokens), fixed.device
        )
        computing += compute(here * one, here * size[number])
        for part in feed.parts(number, used):
            clock[1] = max(clock[1], part.filled)
            count = len(used & set(part.experts))
            scale = len(absent) / len(used)
            computing += compute(count * one * scale, count * size[number])
            part.buffer.read = clock[1]
    return Overlap(copies, computing, max(clock))


def main(models: Sequence[tuple[str, ModelSpec]]) -> None:
    """Print a line for each model, chunk and part of experts that is on the device."""
    for name, model in models:
        for tokens in TOKENS:
            for resident in RESIDENT:
                found = overlap(model, tokens, resident)
                times = "copies {:.3f} s, computing {:.3f} s, together {:.3f} s".format(*found)
                line = f"{name:16} {tokens} tokens, {resident:3.0%} resident: {times}"
                sys.stdout.write(f"{line}, {found.share:.3f} of the bound, simulated\n")


if __name__ == "__main__":
    main(
        [
            ("qwen3-30b-a3b", spec(QWEN3_30B)),
            ("qwen3.6-35b-a3b", spec(QWEN36_35B)),
            ("gpt-oss-20b", spec(GPT_OSS, "MXFP4")),
            ("mixtral-8x7b", spec(MIXTRAL)),
            ("deepseek-v3", spec(DEEPSEEK_V3)),
        ]
    )
