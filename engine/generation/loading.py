"""From a `Load` to a `Model`: which runtime, how long a context, and whether it fits into memory.

What only one runtime needs is imported when that runtime is chosen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from engine.common.os_errors import os_reason
from engine.downloads.integrity import changed_since_check
from engine.errors import UnsupportedModelError
from engine.generation.own_sampling import own_sampling
from engine.generation.speculation import Speculation
from engine.gguf.file import GGUFFile
from engine.gguf.header import shown
from engine.machine.probe import available_memory, here, probe
from engine.plan.context import choose_context
from engine.plan.token_reads import TokenReads
from engine.protocol import Event, Load, Loaded, Notice, Progress
from engine.runtimes.base import CancelFlag, LoadProgress, Model, OnDisk, Runtime
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from engine.text.template import ChatTemplate
from engine.text.tokenizer import Tokenizer

Emit = Callable[[Event], None]
Say = Callable[[str], None]


def load_model(load: Load, cancelled: CancelFlag, emit: Emit) -> Model:
    """Open, check and load the model at `load.path`; emits `Progress` and `Notice`.

    Raises `ModelFileError`, `UnsupportedModelError`, `MemoryShortError`, `RequestError`, `EngineError`.
    """
    started = time.perf_counter()

    def progress(done: int, total: int) -> None:
        emit(Progress("load", done, total, time.perf_counter() - started))

    def say(words: str) -> None:
        emit(Notice(words))

    if "torch" in sys.modules:  # a GPU was used: what the model before this one held is freed
        from engine.runtimes.gpu import release_cached

        release_cached()
    with ExitStack() as resources:
        file = GGUFFile.open(Path(load.path))
        resources.callback(file.close)
        if changed := changed_since_check(file.paths):
            say(
                f"{shown(changed.name)} changed since it was checked. Ctrl+O, then v, or"
                " `ktchat models verify` compares it with its checksum"
            )
        spec = read_spec(file)
        name = _runtime_name(load, spec, emit)
        # Its process starts while the rest loads.
        template = ChatTemplate.start(file)
        resources.callback(template.close)
        tokenizer = Tokenizer.open(file.path, file)
        resources.callback(tokenizer.close)
        runtime = _RUNTIMES[name](file, spec, load, progress, say, cancelled)
        resources.callback(runtime.close)
        on_disk = _on_disk(runtime, file, load, say)
        if on_disk is not None:
            resources.callback(on_disk.close)
        speculation = _speculation(runtime, tokenizer, load)
        if template.notice:
            emit(Notice(template.notice))
        loaded = Loaded(
            path=load.path,
            name=spec.name,
            architecture=spec.architecture,
            quantisation=spec.quantisation,
            runtime=runtime.name,
            context=runtime.context,
            weights_bytes=runtime.weights_bytes,
            kv_bytes_per_token=runtime.kv_bytes_per_token,
            seconds=time.perf_counter() - started,
            device=runtime.device,
            think=tuple(template.switches.choices),
            think_default=template.switches.default,
            sampling=own_sampling(file.metadata),
        )
        reads = _token_reads(runtime, spec)
        return Model(
            *(loaded, tokenizer, template, runtime),
            *(resources.pop_all(), on_disk, speculation, reads),
        )


def _on_disk(runtime: Runtime, file: GGUFFile, load: Load, say: Say) -> OnDisk | None:
    """Our own runtime's KV cache is kept between replies, where that is wished."""
    if not load.cache_folder or runtime.name != "native":
        return None
    from engine.disk_cache.folder import CacheFolder
    from engine.runtimes.native import NativeRuntime

    assert isinstance(runtime, NativeRuntime)
    try:
        return runtime.on_disk(CacheFolder(Path(load.cache_folder)), file.paths, load.cache_budget)
    except OSError as error:
        say(f"What is read is not kept on the disk: {os_reason(error)[0]}")
        return None


def _speculation(runtime: Runtime, tokenizer: Tokenizer, load: Load) -> Speculation | None:
    """Our own runtime looks ahead, where that is wished and what was read can be cut back."""
    if not load.lookup or runtime.name != "native":
        return None
    from engine.runtimes.native import NativeRuntime

    assert isinstance(runtime, NativeRuntime)
    if not runtime.can_cut_back:
        return None
    runtime.warm_up()
    return Speculation(runtime, tokenizer.is_end)


def _token_reads(runtime: Runtime, spec: ModelSpec) -> TokenReads:
    """What tokens read where the model lies now."""
    if runtime.name != "native":
        return TokenReads(spec, here(), "llama.cpp")
    from engine.runtimes.native import NativeRuntime

    assert isinstance(runtime, NativeRuntime)
    placement = runtime.placement
    hardware = here() if placement is None else probe(measure=False)
    return TokenReads(spec, hardware, "native", placement, runtime.kv)


def _runtime_name(load: Load, spec: ModelSpec, emit: Emit) -> str:
    """The runtime asked for, else the native one where it knows the model, else llama.cpp."""
    if load.runtime == "native" and not spec.native:
        raise UnsupportedModelError(
            f"The native runtime cannot run {spec.name}",
            spec.unsupported,
            "Leave the choice of the runtime to ktchat",
        )
    if load.runtime == "llama.cpp" and spec.ik_types:
        raise UnsupportedModelError(
            f"llama.cpp cannot run {spec.name}",
            "It is quantised for ik_llama.cpp, in types that llama.cpp does not know",
            "Leave the choice of the runtime to ktchat",
        )
    if load.runtime is not None:
        return load.runtime
    if not spec.native:
        emit(Notice(f"{spec.architecture} runs on llama.cpp: {spec.unsupported}"))
    return spec.runtime


def _native(
    file: GGUFFile,
    spec: ModelSpec,
    load: Load,
    progress: LoadProgress,
    say: Say,
    cancelled: CancelFlag,
) -> Runtime:
    from engine.runtimes.chosen import open_native

    runtime = open_native(file, spec, load, progress, say)
    runtime.watch_for(cancelled)
    return runtime


def _llama_cpp(
    file: GGUFFile,
    spec: ModelSpec,
    load: Load,
    progress: LoadProgress,
    say: Say,
    cancelled: CancelFlag,
) -> Runtime:
    from engine.common.packages import require_llama_cpp
    from engine.runtimes.chosen import plan_for_load, say_longer
    from engine.runtimes.llama_cpp import LlamaCppRuntime
    from kernels.cpu.cores import default_threads

    require_llama_cpp("This model")
    plan_for_load(load, spec, say)  # says what a GPU would be wanted for
    context = choose_context(load.context, spec, available_memory())
    say_longer(context, spec, say)
    return LlamaCppRuntime.load(
        file.path,
        context,
        load.threads or default_threads(),
        progress,
        cancelled,
        spec.kv_bytes_per_token,
    )


_Open = Callable[[GGUFFile, ModelSpec, Load, LoadProgress, Say, CancelFlag], Runtime]
_RUNTIMES: dict[str, _Open] = {"native": _native, "llama.cpp": _llama_cpp}
