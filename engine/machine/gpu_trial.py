"""What only running on a GPU tells: whether our kernels compute there, how it syncs with the host, how fast it copies.

`ask` runs this module in a process of its own, because torch takes a second to import, CUDA holds
memory while a process lives, and a driver may crash.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from engine.process.environment import environment
from engine.process.exit_report import last_words
from engine.process.lifetime import die_with_parent

SECONDS = 120.0
"""Longest wait: a first kernel is compiled."""
COPIED = 256 << 20
"""Bytes of a copy that is timed."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU, tried. `error` says why it cannot compute, and is empty where it can."""

    name: str = ""
    hand_over: str = ""
    attention: str = ""
    reads_gb_s: float = 0.0
    """Of its own memory, in a copy."""
    receives_gb_s: float = 0.0
    """From pinned memory of the host."""
    error: str = ""


def ask() -> list[GpuFacts]:
    """Every GPU that CUDA shows, tried; a single entry with `error` where the process failed."""
    command = (sys.executable, "-P", "-m", "engine.machine.gpu_trial")
    try:
        done = subprocess.run(
            command,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return [GpuFacts(error=f"it did not answer within {SECONDS:g} seconds")]
    return read(done.returncode, done.stdout, done.stderr)


def read(status: int, said: str, log: str) -> list[GpuFacts]:
    """What the process said; its end is its last line."""
    try:
        entries = json.loads(said.strip().splitlines()[-1]) if status == 0 else None
        if entries == []:
            return [GpuFacts(error="torch sees no CUDA device")]
        if entries:
            return [GpuFacts(**entry) for entry in entries]
    except (IndexError, TypeError, ValueError):
        pass
    return [GpuFacts(error=last_words(log) or f"the check ended with status {status}")]


def main() -> int:
    """Print what was found as JSON."""
    die_with_parent()  # nobody else would hear the answer
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    import torch

    facts = [_facts(gpu) for gpu in range(torch.cuda.device_count())]
    sys.stdout.write(json.dumps([asdict(one) for one in facts]) + "\n")
    return 0


def _facts(gpu: int) -> GpuFacts:
    import torch

    from kernels.gpu.gpu_ops import GpuOps
    from kernels.ops import CacheShape

    name = torch.cuda.get_device_name(gpu)
    try:
        ops = GpuOps(torch.device("cuda", gpu))
        with ops.active():
            _check_product(ops)
            return GpuFacts(
                name,
                ops.host_sync,
                ops.attention_kernel(CacheShape(1, 1, 32, 4, 128, 128), 32),
                _gb_s("cuda", 2),
                _gb_s("cpu", 1),
            )
    except Exception as error:  # whatever it is, it is the answer
        return GpuFacts(name, error=f"{type(error).__name__}: {error}")


def _check_product(ops: Any) -> None:
    """A product of random weights, as the reference computes it."""
    import numpy as np

    from kernels.ops import Tensor
    from kernels.quants import BY_NAME
    from kernels.reference import ReferenceOps

    rng = np.random.default_rng(0)
    values = rng.standard_normal((96, 128)).astype(np.float16)
    tensor = Tensor("check", BY_NAME["F16"], values.shape, values.view(np.uint8).reshape(-1))
    x = rng.standard_normal((1, 128)).astype(np.float32)
    results = []
    for one in (ops, ReferenceOps()):
        (product,) = one.norm_linear(one.from_numpy(x), None, 0.0, [one.matrix(tensor)])
        results.append(one.to_numpy(product))
    ours, wanted = results
    if not np.allclose(ours, wanted, rtol=1e-3, atol=1e-3):
        raise ArithmeticError("a product came out wrong")


def _gb_s(source: str, ways: int) -> float:
    """Speed of a copy into the GPU's memory, the best of five; bytes count once or twice."""
    import torch

    pinned = source == "cpu"
    values = torch.empty(COPIED, dtype=torch.uint8, device=source, pin_memory=pinned)
    target = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    best = 0.0
    for _ in range(6):
        torch.cuda.synchronize()
        started = time.perf_counter()
        target.copy_(values, non_blocking=True)
        torch.cuda.synchronize()
        best = max(best, ways * COPIED / (time.perf_counter() - started) / 1e9)
    return round(best, 1)


if __name__ == "__main__":
    raise SystemExit(main())
