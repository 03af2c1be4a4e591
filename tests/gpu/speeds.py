"""Speed of a shape with its experts on the GPU, then on the CPU, against what the memories allow.

`python -m tests.gpu.speeds [FILE]` measures a file that is there, or the shape that it makes, and tells each
placement.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluation.synthetic import shape_file
from engine.gguf.file import GGUFFile
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from tests.gpu import bandwidth, placements
from tests.gpu.children import Case, tell
from tests.gpu.placements import HOST, WHOLE, Where

SHAPE, LAYERS = "qwen3-30b-a3b", 8
PROMPT, REPLY, ROUNDS = 512, 64, 3
WARM = 4
"""Tokens before anything is timed: kernels are compiled, a pass is captured."""
CONTEXT = PROMPT + WARM + ROUNDS * REPLY
ROOM = 0.85
"""Part of the free VRAM that a model's file may have when all of it goes there."""


def main(path: Path) -> None:
    """Tell the machine's bandwidths, then the speeds."""
    from engine.machine.probes.bandwidth import read_bandwidth
    from kernels.cpu.cores import default_threads

    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        dense, experts = token_bytes(file, spec)
    device, threads = bandwidth.copy(), default_threads()
    memory = read_bandwidth(threads)
    tell({"name": "bandwidth", "device_gb_s": device, "memory_gb_s": memory, "threads": threads})
    tell({"name": "token", "dense_bytes": dense, "expert_bytes": experts})
    free = free_bytes()
    if spec.weights_bytes <= ROOM * free:
        tell({"name": "gpu"} | measure(path, spec, WHOLE, (dense + experts) / device / 1e9))
    else:
        words = f"{spec.weights_bytes / 1e9:.1f} GB of weights, {free / 1e9:.1f} GB of VRAM free"
        tell({"name": "gpu", "does_not_fit": words})
    bound = dense / device / 1e9 + experts / memory / 1e9
    tell({"name": "split"} | measure(path, spec, HOST, bound))


def token_bytes(file: GGUFFile, spec: ModelSpec) -> tuple[int, int]:
    """Bytes that a decoded token reads: of all but routed experts, cache included, and of those."""
    assert spec.moe is not None
    stacks = sum(info.nbytes for name, info in file.tensors.items() if "_exps." in name)
    experts = stacks * spec.moe.top_k // spec.moe.experts
    cache = (CONTEXT - ROUNDS * REPLY // 2) * spec.kv_bytes_per_token
    return spec.active_bytes_per_token - experts + cache, experts


def measure(path: Path, spec: ModelSpec, where: Where, bound: float) -> Case:
    """Speeds in tokens a second; `bound` is a token's least time in seconds, `ratio` its part of ours."""
    tokens = np.random.default_rng(0).integers(0, spec.vocab, CONTEXT + 1).tolist()

    def chosen(spec: ModelSpec) -> Any:
        return placements.placement(spec, where, 2 * CONTEXT)

    begin = time.perf_counter()
    with placements.runtime(path, chosen) as runtime:
        loading = time.perf_counter() - begin

        def seconds(part: list[int]) -> float:
            start = time.perf_counter()
            for token in part:
                runtime.forward([token])
            return time.perf_counter() - start

        runtime.begin([(tokens[0] + 1) % spec.vocab, *tokens])
        runtime.forward(tokens[:PROMPT])
        seconds(tokens[:WARM])
        runtime.begin(tokens)
        start = time.perf_counter()
        runtime.forward(tokens[:PROMPT])
        prefill = PROMPT / (time.perf_counter() - start)
        seconds(tokens[PROMPT : PROMPT + WARM])
        firsts = range(PROMPT + WARM, CONTEXT, REPLY)
        rounds = [REPLY / seconds(tokens[first : first + REPLY]) for first in firsts]
    speed = statistics.median(rounds)
    return {
        "prefill_tok_s": prefill,
        "decode_tok_s": speed,
        "rounds_tok_s": rounds,
        "bound_tok_s": 1 / bound,
        "ratio": speed * bound,
        "load_seconds": loading,
    }


def free_bytes() -> int:
    """Free VRAM of the first GPU."""
    import torch

    return int(torch.cuda.mem_get_info(0)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else shape_file(SHAPE, LAYERS))
