"""The hybrid runtime where a plan puts it: on the CPU alone, or with GPUs.

Knows when a GPU is looked for and when memory does not suffice; how a model is loaded is the runtimes'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.context import choose_context
from engine.errors import EngineError, MemoryShortError, RequestError
from engine.gguf import GGUFFile
from engine.hardware import available_memory, probe
from engine.machine import Hardware
from engine.plan import MemoryPlan, make_plan
from engine.probes.gpu import gpus
from engine.protocol import Load
from engine.runtimes.base import LoadProgress
from engine.runtimes.hybrid import HybridRuntime
from engine.spec import ModelSpec

Say = Callable[[str], None]


def open_hybrid(
    file: GGUFFile,
    spec: ModelSpec,
    load: Load,
    progress: LoadProgress = lambda done, total: None,
    say: Say = lambda words: None,
) -> HybridRuntime:
    """The model in `file`, loaded as `load` wishes and this machine allows.

    Raises `MemoryShortError`, `RequestError` for a context or a device that is not there, `EngineError`.
    """
    plan = gpu_plan(load, spec)
    context = plan.context if plan else choose_context(load.context, spec, available_memory())
    if context > spec.context:
        say(f"This model was trained for {spec.context} tokens; beyond, it may fail")
    with _native_errors():
        if plan is None:
            return HybridRuntime.load(file, spec, context, load.threads, progress)
        from engine.runtimes.gpu import load_on_gpus

        return load_on_gpus(file, spec, load, plan, _look, progress, say)


def gpu_plan(load: Load, spec: ModelSpec) -> MemoryPlan | None:
    """Where the model goes when a GPU takes part in it; None: the CPU computes alone.

    Raises `RequestError` for what only a GPU can do where none can be used, and `MemoryShortError`.
    """
    asked = load.device == "gpu" or load.kv == "q8"
    if not asked and (load.device == "cpu" or not gpus()[0]):
        return None
    if load.runtime == "llama.cpp":
        raise RequestError(
            "llama.cpp runs on the CPU only",
            "It was asked for together with what only a GPU does",
            "Leave the choice of the runtime to ktchat",
        )
    plan = make_plan(spec, _look(), load.context, load.device, load.kv)
    if plan.placement is None:
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
