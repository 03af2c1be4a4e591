"""Planned against measured VRAM: four shapes, three sizes of context each.

`python -m tests.gpu.vram SHAPE LAYERS RECIPE CONTEXT...` plans as `ktchat plan` does, loads what was
planned, fills the context's buffers, and asks the driver what the process has taken.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from engine.evaluation.synthetic import shape_file
from engine.gguf.file import GGUFFile
from engine.machine.probe import probe
from engine.plan.memory_plan import MemoryPlan
from engine.plan.placement import Placement
from engine.plan.planner import make_plan
from engine.spec.reader import read_spec
from tests.gpu import placements
from tests.gpu.children import Case, tell

PROMPT = 1100
"""Tokens read before the measurement: two whole chunks and a part."""
TOKENS = 4
"""Decoded after that: a pass is captured."""


class Subject(NamedTuple):
    """A shape cut to some layers."""

    shape: str
    layers: int
    recipe: str


def main(subject: Subject, contexts: Sequence[int]) -> None:
    """Measure each context in one process: its CUDA context is there from the first on."""
    path = shape_file(subject.shape, subject.layers, recipe=subject.recipe)
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
    machine = probe(measure=False)
    for context in contexts:
        plan = make_plan(spec, machine, context, device="gpu")
        assert plan.placement is not None
        used = plan.placement.gpus
        left = fill(path, plan.placement)
        tell(case(subject, plan, sum(machine.gpus[n].free - left[n] for n in used)))


def fill(path: Path, placed: Placement) -> dict[int, int]:
    """Free bytes of its GPUs with the plan's model loaded and used; the model is gone afterwards."""
    with placements.runtime(path, lambda spec: placed) as runtime:
        tokens = [number * 7 % runtime.vocab_size for number in range(PROMPT)]
        runtime.begin(tokens)
        for first in range(0, PROMPT, runtime.chunk):
            runtime.forward(tokens[first : first + runtime.chunk])
        for token in tokens[:TOKENS]:
            runtime.forward([token])
        left = {number: free_bytes(number) for number in placed.gpus}
    del runtime
    forget()
    return left


def free_bytes(gpu: int) -> int:
    """As the driver counts: for a plan (`engine.machine.probes.gpu`) what we hold ourselves is free too."""
    import torch

    free: int = torch.cuda.mem_get_info(gpu)[0]
    return free


def forget() -> None:
    """Give back what the allocator keeps."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def case(subject: Subject, plan: MemoryPlan, taken: int) -> Case:
    """One comparison, of all GPUs that hold layers; the reserve is planned to stay free and not counted."""
    ledgers = [device for device in plan.devices if device.kind == "VRAM"]
    planned = sum(ledger.resident for ledger in ledgers)
    return {
        **{"shape": subject.shape, "layers": subject.layers, "context": plan.context},
        **{"planned": planned, "measured": taken, "error": planned / taken - 1},
        "parts": [{part.label: part.bytes for part in ledger.segments} for ledger in ledgers],
    }


if __name__ == "__main__":
    shape, layers, recipe, *contexts = sys.argv[1:]
    main(Subject(shape, int(layers), recipe), [int(context) for context in contexts])
