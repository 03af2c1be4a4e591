"""All that only a GPU can prove, in one command: `python -m tests.gpu_check`, or `make gpu-check`.

The kernels' tests compiled, the forward pass on the device (captured and not: the same 256 tokens),
then the speed of models of known shapes against what this machine's memories allow. The last line is
JSON with every figure; `ok` is true where everything passed and every speed reached its bar. Needs no
network and at most eight minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "tests" / "kernels" / "gpu"
LIMIT = 480
"""Seconds for everything."""
FOR_SPEED = 150
"""Seconds of them that tests may not take."""

SHAPE, LAYERS = "qwen3-30b-a3b", 8
PROMPT, REPLY, ROUNDS = 512, 64, 3
PAGE_SIZE = 32
PAGES = -(-(PROMPT + (ROUNDS + 1) * REPLY) // PAGE_SIZE)
PROBE_BYTES = 1 << 30

BARS = {"gpu": 0.60, "split": 0.85}
"""Least part of the bound that decoding reaches (the issue of the hybrid): all on the GPU, of the device's
bandwidth; experts on the CPU, of what both memories' bandwidths predict together."""

NO_GPU = """gpu-check needs a CUDA device, and torch {version} sees none.\
 Run it on a machine with an NVIDIA GPU, its driver and a CUDA build of torch."""


def main() -> int:
    """0 where everything passed, else 1."""
    import torch

    if not torch.cuda.is_available():
        sys.stderr.write(NO_GPU.format(version=torch.__version__) + "\n")
        return 1
    begin = time.monotonic()
    figures: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    figures["tests"] = _tests(begin + LIMIT - FOR_SPEED)
    correct = all(_passed(result) for result in figures["tests"].values())
    correct &= figures["tests"]["test_gpu_ops"].get("skipped") == 0  # graphs are among them
    try:
        figures["speed"] = _speeds()
    except Exception as error:  # the process ends here: what was found out is said all the same
        figures["speed_error"] = f"{type(error).__name__}: {error}"
    speeds = figures.get("speed", {})
    bars = {name: speeds.get(name, {}).get("ratio", 0.0) >= bar for name, bar in BARS.items()}
    figures |= {"correct": correct, "bars": bars, "seconds": round(time.monotonic() - begin, 1)}
    figures["ok"] = correct and all(bars.values())
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["ok"] else 1


# ---- correctness -------------------------------------------------------------------------------------


def _tests(deadline: float) -> dict[str, dict[str, Any]]:
    """Every file of the suite in a process of its own, because compiling takes most of the time."""
    files = sorted(path for path in SUITE.glob("test_*.py"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            path.stem: pool.submit(_test, path, Path(folder, f"{path.stem}.xml"), deadline)
            for path in files
        }
        results = {}
        for name, job in jobs.items():
            results[name] = job.result()
            _say(f"{name}: {_words(results[name])}")
    return results


def _test(path: Path, report: Path, deadline: float) -> dict[str, Any]:
    """Counts of one file's tests; a failing one's last lines go to stderr."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"KTCHAT_GPU_TESTS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", str(path), "-m", "not slow", f"--junitxml={report}"]
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, deadline - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        return {"code": None, "timed_out": True}
    if run.returncode not in (0, 5):
        sys.stderr.write(run.stdout[-4000:] + "\n")
    if not report.exists():
        return {"code": run.returncode}
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    names = ("tests", "failures", "errors", "skipped")
    counts = {name: int(suite.attrib[name]) for name in names}
    return {"code": run.returncode, **counts, "seconds": float(suite.attrib["time"])}


def _passed(result: dict[str, Any]) -> bool:
    """Whether a file's tests passed. Code 5 of pytest: all of them are slow ones, left out here."""
    ran = int(result.get("tests", 0)) > int(result.get("skipped", 0))
    return result["code"] == 5 or (result["code"] == 0 and ran)


def _words(result: dict[str, Any]) -> str:
    if result.get("timed_out"):
        return "stopped, time was up"
    if "tests" not in result:
        return f"pytest ended with {result['code']}"
    bad = result["failures"] + result["errors"]
    return f"{result['tests']} tests, {bad} failed, {result['skipped']} skipped"


# ---- speed -------------------------------------------------------------------------------------------


def _speeds() -> dict[str, Any]:
    """Figures of the shape with its experts on the GPU, then on the CPU, and the bandwidths."""
    from engine.gguf import GGUFFile
    from engine.memory_limit import read_limit
    from engine.spec import ModelSpec
    from engine.synthetic import shape_file
    from kernels.cpu import CpuOps
    from kernels.gpu.gpu_ops import GpuOps
    from kernels.split import SplitOps

    _say(f"writing {SHAPE} with {LAYERS} layers")
    with GGUFFile.open(shape_file(SHAPE, LAYERS)) as file:
        spec = ModelSpec.from_file(file)
        assert spec.moe is not None
        stacks = sum(t.nbytes for name, t in file.tensors.items() if "_exps." in name)
        experts = stacks * spec.moe.top_k // spec.moe.experts
        context = (PROMPT + REPLY) * spec.kv_bytes_per_token
        dense = spec.active_bytes_per_token - experts + context
        device = _device_bandwidth()
        result: dict[str, Any] = {"shape": SHAPE, "layers": LAYERS, "device_gb_s": device}
        result |= {"dense_bytes": dense, "expert_bytes": experts}
        _say("measuring with everything on the GPU")
        result["gpu"] = _measure(file, spec, GpuOps(), (dense + experts) / device / 1e9)
        _say("measuring with the experts on the CPU")
        host = CpuOps()
        split: Any = SplitOps(GpuOps(), host, lambda tensor: ())
        try:
            memory = read_limit(host.threads)
            bound = dense / device / 1e9 + experts / memory / 1e9
            result |= {"memory_gb_s": memory, "threads": host.threads}
            result["split"] = _measure(file, spec, split, bound)
        finally:
            split.close()
    return result


def _measure(file: Any, spec: Any, ops: Any, bound: float) -> dict[str, float]:
    """Speeds in tokens a second; `bound` is the least time of a token in seconds, `ratio` its part of ours.

    `decode_tok_s` is what a conversation has, `eager_tok_s` the same without a captured graph.
    """
    import gc

    import numpy as np
    import torch

    from engine.model.transformer import Transformer, page_table

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model: Any = Transformer(file, spec, ops, PAGES, PAGE_SIZE)
    loaded = torch.cuda.memory_allocated() - before
    pages = page_table(list(range(PAGES)))
    tokens = np.random.default_rng(0).integers(0, spec.vocab, PAGES * PAGE_SIZE).astype(np.int32)

    def decode(forward: Callable[..., Any], first: int) -> float:
        start = time.perf_counter()
        for position in range(first, first + REPLY):
            forward(tokens[position : position + 1], pages, position)
        return REPLY / (time.perf_counter() - start)

    for run in (model.forward, model.forward_all):
        for _ in range(2):  # compiles, captures
            run(tokens[:1], pages, 0)
    model.forward(tokens[:PROMPT], pages, 0)
    begin = time.perf_counter()
    model.forward(tokens[:PROMPT], pages, 0)
    prefill = PROMPT / (time.perf_counter() - begin)
    rounds = [decode(model.forward, PROMPT + number * REPLY) for number in range(ROUNDS)]
    eager = decode(model.forward_all, PROMPT + ROUNDS * REPLY)
    speed = statistics.median(rounds)
    return {
        "prefill_tok_s": prefill,
        "decode_tok_s": speed,
        "eager_tok_s": eager,
        "bound_tok_s": 1 / bound,
        "ratio": speed * bound,
        "loaded_bytes": loaded,
        "peak_bytes": torch.cuda.max_memory_allocated() - before,
    }


def _device_bandwidth() -> float:
    """GB/s that the device moves in a copy, reads and writes counted; the median of ten."""
    import torch

    event: Any = torch.cuda.Event
    source = torch.zeros(PROBE_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds: list[float] = []
    for _ in range(12):
        start, end = (event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return 2 * PROBE_BYTES / statistics.median(seconds[2:]) / 1e9


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
