"""How much of a token neither the GPU nor the CPU's experts work, from the trace of `ktchat bench --trace`.

`python -m tests.gpu.overhead LAYERS` traces the shape with that many layers in both placements. Tokens of
the whole model follow from two counts of layers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluation import bench_trace
from engine.evaluation.synthetic import shape_file
from engine.spec.spec import ModelSpec
from tests.gpu import placements
from tests.gpu.children import Case, tell
from tests.gpu.placements import HOST, WHOLE, Where
from tests.gpu.speeds import SHAPE

PROMPT = 128


def main(layers: int) -> None:
    """Trace both placements."""
    path = shape_file(SHAPE, layers)
    for name, where in (("gpu", WHOLE), ("split", HOST)):
        tell({"name": name, "layers": layers} | traced(path, where))


def traced(path: Path, where: Where) -> Case:
    """A token's nanoseconds, and those without work."""
    context = PROMPT + bench_trace.SPARE

    def chosen(spec: ModelSpec) -> Any:
        return placements.placement(spec, where, 2 * context)

    with placements.runtime(path, chosen) as runtime:
        tokens = np.random.default_rng(1).integers(1, runtime.vocab_size, context).tolist()
        runtime.begin([0])
        runtime.forward([0] * PROMPT)  # compiles
        runtime.forward([0])  # captures
        trace = bench_trace.traced(runtime, tokens, PROMPT)
    share, token = trace.overhead, trace.token_ns
    return {"token_ns": token, "overhead_ns": share * token, "share_of_few_layers": share}


if __name__ == "__main__":
    main(int(sys.argv[1]))
