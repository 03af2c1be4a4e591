"""A model on this machine's GPUs: planned, loaded, and planned once more where memory ran out.

torch is imported only to open a GPU.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.common.units import byte_size, count
from engine.errors import GpuUnusableError, MemoryShortError, RequestError
from engine.gguf.file import GGUFFile
from engine.machine.types import Hardware
from engine.plan.gpu_footprint import reserve_bytes
from engine.plan.memory_plan import MemoryPlan
from engine.plan.planner import make_plan
from engine.protocol import Load
from engine.runtimes.base import LoadProgress
from engine.runtimes.gpu_selftest import check_gpu
from engine.runtimes.native import NativeRuntime
from engine.runtimes.placed import OpenDevice, load_placed
from engine.spec.spec import ModelSpec
from kernels.device import DeviceMemory, DeviceOps

Say = Callable[[str], None]
Look = Callable[[], Hardware]
"""This machine as it is now."""

LESS = 10
"""A second plan leaves a tenth of the free VRAM alone: the first one was too tight."""


def load_on_gpus(
    file: GGUFFile,
    spec: ModelSpec,
    load: Load,
    plan: MemoryPlan,
    look: Look,
    progress: LoadProgress,
    say: Say,
    open_device: OpenDevice | None = None,
) -> NativeRuntime:
    """The model as `plan` places it. Where a GPU's memory runs out, once more as a second plan does, for
    half the context and what is free then.

    Raises `MemoryShortError` when that fails too, and `GpuUnusableError` where a GPU cannot be used.
    """
    device = open_device or cuda_device

    def attempt(plan: MemoryPlan, hardware: Hardware) -> NativeRuntime | str:
        """The runtime, or how memory ran out: the error itself would hold what was loaded so far."""
        assert plan.placement is not None
        try:
            if open_device is None:
                for gpu in plan.placement.gpus:
                    check_gpu(gpu, hardware, device, say)
                release_cached()  # the guide's
            return _load(file, spec, load, plan, hardware, progress, say, device)
        except MemoryError as error:
            return str(error)

    first = attempt(plan, look())
    if not isinstance(first, str):
        return first
    release_cached()
    say(f"The GPU's memory ran out: {first}. Trying again with a shorter context")
    hardware, tried = _with_less(look()), f"A context of {count(plan.context)} tokens was tried"
    try:
        again = make_plan(spec, hardware, max(1, plan.context // 2), "gpu", load.kv)
    except RequestError as error:
        raise _short(spec, look(), f"{tried}: {first}. {error.why}") from None
    second = attempt(again, hardware)
    if not isinstance(second, str):
        return second
    release_cached()
    raise _short(spec, look(), f"{tried}, then {again.context}: {second}")


def release_cached() -> None:
    """Free what nothing uses: a model dies in cycles, and torch keeps what it freed for itself."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()


def _load(
    file: GGUFFile,
    spec: ModelSpec,
    load: Load,
    plan: MemoryPlan,
    hardware: Hardware,
    progress: LoadProgress,
    say: Say,
    open_device: OpenDevice,
) -> NativeRuntime:
    assert plan.placement is not None

    def reserve(gpu: int, memory: DeviceMemory) -> int:
        return reserve_bytes(hardware.gpus[gpu])

    longest = load.context == "auto"
    runtime = load_placed(
        file, spec, plan.placement, open_device, reserve, load.threads, progress, longest
    )
    wanted = load.context if isinstance(load.context, int) else plan.context
    if runtime.context < wanted:
        say(
            f"The context is {count(runtime.context)} tokens and not {count(wanted)}:"
            " so many fit beside the weights"
        )
    return runtime


def _with_less(hardware: Hardware) -> Hardware:
    gpus = tuple(replace(gpu, free=gpu.free - gpu.free // LESS) for gpu in hardware.gpus)
    return replace(hardware, gpus=gpus)


def _short(spec: ModelSpec, now: Hardware, tried: str) -> MemoryShortError:
    free = ", ".join(f"{byte_size(gpu.free)} of {byte_size(gpu.total)}" for gpu in now.gpus)
    others = [
        f"{user.name} holds {byte_size(user.bytes)}" for gpu in now.gpus for user in gpu.users
    ]
    return MemoryShortError(
        f"{spec.name} does not fit into the GPU's memory",
        f"{tried}. Free now: {free}" + (f"; {', '.join(others)}" if others else ""),
        "Close programs that use the GPU, choose a smaller context, or load it with --device cpu",
    )


def cuda_device(gpu: int) -> DeviceOps[Any, Any, Any]:
    """The op set of a GPU, numbered as the driver does. Raises `GpuUnusableError` where torch cannot use it."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # read when CUDA starts
    try:
        import torch
        import triton

        from kernels.gpu.gpu_ops import GpuOps
    except ImportError as error:
        raise GpuUnusableError(
            "The GPU cannot be used", str(error), "Install ktchat's gpu extra, or use --device cpu"
        ) from error
    if not torch.cuda.is_available() or gpu >= torch.cuda.device_count():
        raise GpuUnusableError(
            "The GPU cannot be used",
            f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices",
            "Install a CUDA build of torch and NVIDIA's driver, or use --device cpu",
        )
    try:
        triton.runtime.driver.active.get_current_device()  # builds its launcher, the first time
    except (RuntimeError, OSError, AssertionError, subprocess.CalledProcessError) as error:
        raise GpuUnusableError(
            "The GPU cannot be used",
            f"Triton cannot build what starts its kernels: {error}",
            "Install a C compiler and Python's headers (sudo apt install gcc python3-dev), or use --device cpu",
        ) from error
    return GpuOps(torch.device("cuda", gpu))
