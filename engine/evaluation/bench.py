"""Speed of a model: prefill and decode, against the memory bandwidth and against llama.cpp.

Everything that is compared is measured in the same round, a second or so apart, because a shared
machine drifts: the bandwidth, our runtime and llama.cpp take turns on the same mapped file, with the
same tokens, threads and batch. Tokens are drawn at random, as llama-bench does. A round in which the
bandwidth moved, or other programs computed, does not count and is repeated, not for ever.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.common.packages import require_llama_cpp
from engine.common.units import byte_size, count
from engine.errors import MemoryShortError, RequestError, UnsupportedModelError
from engine.evaluation import bench_trace
from engine.evaluation.bench_result import BenchResult, Load, Round, Speed
from engine.evaluation.bench_sides import BaselineSide, OurSide, Side
from engine.evaluation.conditions import conditions
from engine.evaluation.disturbance import until_quiet
from engine.evaluation.llama_cpp_reference import BASELINE, LlamaCppReference, baseline_version
from engine.gguf.file import GGUFFile
from engine.machine.probe import here
from engine.machine.probes.memory import available_memory
from engine.machine.probes.pages import huge_page_bytes
from engine.plan.memory_plan import MemoryPlan
from engine.protocol import Device, KvKind
from engine.protocol import Load as Request
from engine.runtimes.chosen import kv_kind, load_as, plan_for_load
from engine.runtimes.native import NativeRuntime
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and its whole."""

WARM_UP = 32
"""Tokens through each side before the first round."""

REST = 0.05
"""Seconds between two measurements, in which spinning threads go to sleep."""


def bench(
    path: Path,
    load: Load,
    *,
    versus: bool = False,
    threads: int | None = None,
    traced: bool = False,
    device: Device = "auto",
    kv: KvKind = "f16",
    report: Report = lambda what, done, total: None,
) -> BenchResult:
    """Measure the model at `path`; `versus` llama.cpp on the CPU too. `traced` tokens come after all rounds.

    Raises as `bench_each`.
    """
    settings: dict[str, Any] = {"versus": versus, "threads": threads, "device": device, "kv": kv}
    (result,) = bench_each(path, [load], traced=traced, report=report, **settings)
    return result


def bench_each(
    path: Path,
    loads: Sequence[Load],
    *,
    versus: bool = False,
    threads: int | None = None,
    traced: bool = False,
    device: Device = "auto",
    kv: KvKind = "f16",
    report: Report = lambda what, done, total: None,
) -> list[BenchResult]:
    """Measure each load with the model, which is loaded once; `traced` tokens are those of the last.

    Raises `ModelFileError`, `UnsupportedModelError` for an architecture that only llama.cpp runs,
    `RequestError` when the load does not fit the model's context or there is no such `device`,
    `MemoryShortError`, `EngineError`.
    """
    from kernels.cpu.cores import default_threads

    count = default_threads() if threads is None else threads
    context = max(load.context for load in loads)
    if traced:
        context = max(context, loads[-1].before + bench_trace.SPARE)
    with ExitStack() as stack:
        file = stack.enter_context(GGUFFile.open(path))
        spec = read_spec(file)
        _check(path, spec, context, versus)
        request = Request(str(path), context + 1, count, device=device, kv=kv)
        plan = plan_for_load(request, spec)
        _check_memory(path, spec, context, (plan is None) + versus)
        runtime = _load(file, spec, request, plan, report)
        stack.callback(runtime.close)
        sides: list[Side] = [OurSide(runtime)]
        if versus:
            report(f"loading in {BASELINE}", 0, 0)
            baseline = LlamaCppReference(
                path, context + 1, threads=count, batch=runtime.chunk, kv=kv_kind(request, spec)
            )
            stack.callback(baseline.close)
            sides.append(BaselineSide(baseline))
        first = itertools.count()
        every = [
            tuple(_rounds(sides, load, spec.vocab, runtime.chunk, count, report, first))
            for load in loads
        ]
        trace = None
        if traced:
            report("tracing", 0, 0)
            time.sleep(REST)
            trace = bench_trace.traced(
                runtime, _trace_tokens(loads[-1], spec.vocab, next(first)), loads[-1].prompt
            )
        pages = huge_page_bytes()
    return [
        BenchResult(
            model=spec.name or path.name,
            quantisation=spec.quantisation,
            threads=count,
            load=load,
            weights_bytes=spec.weights_bytes,
            token_bytes=spec.active_bytes_per_token
            + (load.before + load.generate // 2) * runtime.kv_bytes_per_token,
            rounds=rounds,
            baseline_version=baseline_version() if versus else "",
            trace=trace,
            device=runtime.device,
            kv=kv_kind(request, spec),
            memory_nodes=max(1, here().cpu.numa_nodes),
            huge_page_bytes=pages,
            conditions=conditions(),
        )
        for load, rounds in zip(loads, every, strict=True)
    ]


def _load(
    file: GGUFFile, spec: ModelSpec, request: Request, plan: MemoryPlan | None, report: Report
) -> NativeRuntime:
    context = request.context
    assert isinstance(context, int)

    runtime = load_as(
        *(plan, file, spec, request),
        progress=lambda done, total: report("loading", done, total),
        say=lambda words: report(words, 0, 0),
    )
    if runtime.context < context:
        runtime.close()
        raise MemoryShortError(
            f"{count(context)} tokens do not fit into the GPU's memory",
            f"{runtime.context} do",
            "Use a smaller --prompt, --gen or --context-fill",
        )
    return runtime


def _check(path: Path, spec: ModelSpec, context: int, versus: bool) -> None:
    if versus:
        require_llama_cpp("--vs")
    if not spec.native:
        raise UnsupportedModelError(
            f"{path.name} cannot be measured",
            f"Only {BASELINE} runs it: {spec.unsupported}",
            f"Measure it with {BASELINE}'s own llama-bench",
        )
    if versus and spec.ik_types:
        raise RequestError(
            f"{BASELINE} cannot read {path.name}",
            "It is quantised for ik_llama.cpp",
            "Measure it without --vs",
        )
    if context > spec.context:
        raise RequestError(
            f"{count(context)} tokens do not fit",
            f"{path.name} has a context of {count(spec.context)}",
            "Use a smaller --prompt, --gen or --context-fill",
        )


def _check_memory(path: Path, spec: ModelSpec, context: int, times: int) -> None:
    """RAM for the whole model so many times; what a plan places it has counted itself."""
    needed = times * spec.weights_bytes + spec.kv_bytes_per_token * context
    try:
        free = available_memory()
    except OSError:  # Linux does not say
        return
    if times and needed > free:
        twice = times > 1
        raise MemoryShortError(
            f"{path.name} does not fit into memory" + (" twice" if twice else ""),
            f"{byte_size(free)} are free and about {byte_size(needed)} are needed",
            f"Use fewer layers or a smaller model{', or leave out --vs' if twice else ''}",
        )


def _rounds(
    sides: list[Side],
    load: Load,
    vocabulary: int,
    batch: int,
    threads: int,
    report: Report,
    sequences: Iterator[int],
) -> Iterator[Round]:
    """Each round's sequence has a number of its own."""
    rng = np.random.default_rng(0)
    names = ["ktchat", BASELINE]
    for side in sides:
        report("warming up", 0, 0)
        small = Load(min(WARM_UP, load.prompt), 1)
        _speed(side, small, _tokens(rng, small.context, vocabulary, next(sequences)), batch)

    def measure(number: int, quiet: int) -> dict[str, Speed]:
        tokens = _tokens(rng, load.context + load.follow_up, vocabulary, next(sequences))
        speeds: dict[str, Speed] = {}
        order = list(zip(names, sides, strict=False))
        again = ", as others disturbed it" if number > quiet else ""
        for name, side in order if number % 2 == 0 else order[::-1]:
            report(f"measuring {name}{again}", quiet, load.rounds)
            time.sleep(REST)
            speeds[name] = _speed(side, load, tokens, batch)
        return speeds

    for speeds, limit, disturbance in until_quiet(load.rounds, threads, measure):
        yield Round(limit, speeds["ktchat"], speeds.get(BASELINE), disturbance)
    report("done", load.rounds, load.rounds)


def _tokens(rng: np.random.Generator, count: int, vocabulary: int, number: int) -> list[int]:
    """Random tokens whose first differs from that of the rounds before: none is in the prefix cache."""
    return [(number + 1) % vocabulary, *rng.integers(0, vocabulary, count)[1:].tolist()]


def _trace_tokens(load: Load, vocabulary: int, number: int) -> list[int]:
    count = load.before + bench_trace.SPARE
    return _tokens(np.random.default_rng(1), count, vocabulary, number)


def _speed(side: Side, load: Load, tokens: list[int], batch: int) -> Speed:
    side.start(tokens[: load.before])
    prefill = _prefill(side, tokens[: load.prompt], batch)
    _prefill(side, tokens[load.prompt : load.before], batch)
    start = time.perf_counter()
    for token in tokens[load.before : load.decoded]:
        side.forward([token])
    decode = time.perf_counter() - start
    speed = Speed(load.prompt / prefill, load.generate / decode)
    if not load.follow_up:
        return speed
    follow_up = _prefill(side, tokens[load.decoded : load.context], batch)
    second_turn = _second_turn(side, load, tokens, batch)
    return replace(speed, follow_up_s=follow_up, second_turn_s=second_turn)


def _second_turn(side: Side, load: Load, tokens: list[int], batch: int) -> float:
    """Seconds to a follow-up's first token where what was generated is left out, as thinking is."""
    turn = tokens[: load.before] + tokens[load.context : load.context + load.follow_up]
    start = time.perf_counter()
    kept = side.resume(turn, load.before)
    return time.perf_counter() - start + _prefill(side, turn[kept:], batch)


def _prefill(side: Side, tokens: list[int], batch: int) -> float:
    """Append tokens in batches; seconds it took."""
    start = time.perf_counter()
    for first in range(0, len(tokens), batch):
        side.forward(tokens[first : first + batch])
    return time.perf_counter() - start
