"""Measures what a model takes in memory: run as a child, prints JSON.

`python -m tests.support.resident MODEL CONTEXT` loads the model as the engine's process does, reads a
long prompt, fills the KV cache, and prints the bytes that are resident and the plan's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from engine.generation.loading import load_model
from engine.gguf.file import GGUFFile
from engine.machine.types import Hardware, Memory
from engine.plan.planner import make_plan
from engine.protocol import Load
from engine.runtimes.base import CancelFlag
from engine.runtimes.native import NativeRuntime
from engine.spec.reader import read_spec

PROMPT = 1100
"""Tokens read before the measurement: two whole chunks, after which scratch memory no longer grows."""


def resident() -> int:
    """Bytes of this process in memory, mapped files included."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) << 10


def main(path: str, context: int) -> None:
    """Load, fill, measure, print."""
    model = load_model(Load(path, context=context, threads=2), CancelFlag(), lambda event: None)
    runtime = model.runtime
    assert isinstance(runtime, NativeRuntime)
    tokens = [number * 7 % runtime.vocab_size for number in range(PROMPT)]
    runtime.begin(tokens)
    for first in range(0, PROMPT, runtime.chunk):
        runtime.forward(tokens[first : first + runtime.chunk])
    cache = runtime._model.stages[0].memory["full"]
    cache.keys[:, -(-PROMPT // 32) :] = 0  # pages that a longer conversation would write
    cache.values[:, -(-PROMPT // 32) :] = 0
    for slot in range(1, runtime._model.slots):  # states that it would keep
        runtime._model.save_state(slot)
    runtime.forward([1])
    measured = resident()
    with GGUFFile.open(Path(path)) as file:
        spec = read_spec(file)
    plan = make_plan(spec, Hardware(memory=Memory(1 << 40, 1 << 40)), context)
    (ram,) = plan.devices
    result = {"measured": measured, "planned": ram.resident, "parts": ram.segments}
    sys.stdout.write(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # nothing is left to tidy up, and the parent waits


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
