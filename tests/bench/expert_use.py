"""What it costs to count which experts a reply uses: tokens in turns with counters and without.

Decodes with a model of random weights and a real model's layers; every other token is counted and watched, with an
insight twice a second as while the panel is open. The last line on stdout is JSON: medians in milliseconds.

    python -m tests.bench.expert_use [--shape qwen3-30b-a3b] [--layers 8] [--tokens 400]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from engine.common.insight import Insight
from engine.evaluation.synthetic import shape_file
from engine.generation.loading import load_model
from engine.generation.observing import Observer
from engine.gguf.file import GGUFFile
from engine.machine.probe import here
from engine.plan.token_reads import TokenReads
from engine.protocol import Load
from engine.runtimes.base import CancelFlag

PROMPT = list(range(64))


def measure(shape: str, layers: int | None, tokens: int) -> dict[str, object]:
    """One run."""
    path = shape_file(shape, layers)
    with GGUFFile.open(path) as file:
        count = int(file.metadata[f"{file.metadata['general.architecture']}.block_count"])  # type: ignore[call-overload]
    model = load_model(
        Load(str(path), context=2048, lookup=False), CancelFlag(), lambda event: None
    )
    insights: list[Insight] = []
    watched = CancelFlag()
    watched.set()
    observer = Observer(model, len(PROMPT), watched, insights.append)
    runtime, use = model.runtime, model.runtime.expert_use
    assert use is not None and isinstance(model.reads, TokenReads)
    runtime.begin(PROMPT)
    runtime.forward(PROMPT)
    for token in range(8):
        runtime.forward([token])
    observer.begin()
    seconds: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    for token in range(tokens):
        counted = bool(token % 2)
        use.active = counted
        before = time.perf_counter()
        runtime.forward([token % 200])
        if counted:
            observer.token(time.perf_counter() - started)
        seconds[counted].append(time.perf_counter() - before)
    without, with_counters = (1000 * statistics.median(each) for each in seconds)
    use.active = True
    alone = []
    for _ in range(2000):
        before = time.thread_time()
        use.count(1)
        alone.append(time.thread_time() - before)
    model.close()
    return {
        "shape": shape,
        "layers": count,
        "ms_without": round(without, 4),
        "ms_with": round(with_counters, 4),
        "percent": round(100 * (with_counters / without - 1), 3),
        "us_of_processor_counting": round(1e6 * statistics.median(alone), 1),
        "insights": len(insights),
        "ram_gb_s": here().memory.best_read_gb_s,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="qwen3-30b-a3b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--tokens", type=int, default=400)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.shape, arguments.layers, arguments.tokens)))


if __name__ == "__main__":
    main()
