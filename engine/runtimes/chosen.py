"""The native runtime where a plan puts it: on the CPU alone, or with GPUs.

Here it is decided whether a GPU is looked for, and what happens when memory does not suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.common.units import count
from engine.errors import EngineError, GpuUnusableError, MemoryShortError, RequestError
from engine.gguf.file import GGUFFile
from engine.machine.probe import available_memory, probe
from engine.machine.probes.gpu import gpus
from engine.machine.types import Hardware
from engine.plan.context import choose_context
from engine.plan.footprint import quantised_kv_obstacle
from engine.plan.memory_plan import MemoryPlan
from engine.plan.planner import make_plan
from engine.protocol import KvKind, Load
from engine.runtimes.base import LoadProgress
from engine.runtimes.native import NativeRuntime
from engine.spec.spec import ModelSpec

Say = Callable[[str], None]


def open_native(
    file: GGUFFile,
    spec: ModelSpec,
    load: Load,
    progress: LoadProgress = lambda done, total: None,
    say: Say = lambda words: None,
) -> NativeRuntime:
    """The model in `file`, loaded as `load` wishes and this machine allows.

    With device "auto" a GPU that cannot be used after all is said, and the CPU computes. Raises
    `MemoryShortError`, `RequestError` for a context or a device that is not there, `EngineError`.
    """
    return load_as(plan_for_load(load, spec, say), file, spec, load, progress, say)


def load_as(
    plan: MemoryPlan | None,
    file: GGUFFile,
    spec: ModelSpec,
    load: Load,
    progress: LoadProgress = lambda done, total: None,
    say: Say = lambda words: None,
) -> NativeRuntime:
    """The model as `plan_for_load` placed it. Raises as `open_native`."""
    with _native_errors():
        if plan is not None:
            from engine.runtimes.gpu import load_on_gpus

            say_longer(plan.context, spec, say)
            try:
                return load_on_gpus(file, spec, load, plan, _look, progress, say)
            except GpuUnusableError as error:
                if load.device != "auto":
                    raise
                say(f"The CPU computes: {error.what[0].lower()}{error.what[1:]}. {error.why}")
        kv = kv_kind(load, spec)
        context = choose_context(load.context, spec, available_memory(), kv)
        say_longer(context, spec, say)
        return NativeRuntime.load(file, spec, context, load.threads, progress, kv)


def kv_kind(load: Load, spec: ModelSpec) -> KvKind:
    """How our own runtime keeps the KV cache."""
    return "f16" if quantised_kv_obstacle(spec) else load.kv


def say_longer(context: int, spec: ModelSpec, say: Say) -> None:
    """Say that a context is longer than the model was trained for, where it is."""
    if context > spec.context:
        say(f"This model was trained for {count(spec.context)} tokens; beyond, it may fail")


def plan_for_load(load: Load, spec: ModelSpec, say: Say = lambda words: None) -> MemoryPlan | None:
    """Where the model goes when a GPU takes part in it; None: the CPU computes alone.

    Where a KV cache in 8 bits was wished and is not, that is said. Raises `RequestError` for a GPU that was asked for and cannot be used, and `MemoryShortError`.
    """
    if load.device == "gpu" and load.runtime == "llama.cpp":
        raise RequestError(
            "llama.cpp runs on the CPU only",
            "It was asked for together with a GPU",
            "Leave the choice of the runtime to ktchat",
        )
    plan = None
    if load.device == "gpu" or (load.device == "auto" and spec.native and gpus()[0]):
        plan = make_plan(spec, _look(), load.context, load.device, load.kv)
    if load.kv == "q8":
        foreign = "llama.cpp runs the model" if load.runtime == "llama.cpp" else ""
        if why := foreign or quantised_kv_obstacle(spec):
            say(f"The KV cache is in 16 bits: {why}")
    if plan is None or plan.placement is None:
        return None
    if not plan.fits:
        raise MemoryShortError(
            f"{spec.name} does not fit into memory: {plan.fit_words}",
            "; ".join(plan.why),
            "Close other programs, or choose a smaller model, quantisation or context",
        )
    return plan


def _look() -> Hardware:
    return probe(measure=False)


@contextmanager
def _native_errors() -> Iterator[None]:
    from kernels.cpu.build import BuildError
    from kernels.cpu.native import NativeError

    try:
        yield
    except (BuildError, NativeError) as error:
        raise EngineError(
            "The native library cannot be used", str(error), "Build it with `make native`"
        ) from error
