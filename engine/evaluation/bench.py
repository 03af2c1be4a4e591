"""Speed of a model: prefill and decode, against the memory bandwidth and against llama.cpp.

Everything that is compared is measured in the same round, a second or so apart, because a shared
machine drifts: the bandwidth, our runtime and llama.cpp take turns on the same mapped file, with the
same tokens, threads and batch. Tokens are drawn at random, as llama-bench does. A round in which the
bandwidth moved, or other programs computed, does not count and is repeated, not for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.common.units import byte_size
from engine.errors import MemoryShortError, RequestError, UnsupportedModelError
from engine.evaluation import bench_trace
from engine.evaluation.bench_result import BenchResult, Load, Round, Speed
from engine.evaluation.conditions import conditions
from engine.evaluation.disturbance import until_quiet
from engine.evaluation.llama_cpp_reference import BASELINE, LlamaCppReference, baseline_version
from engine.gguf.file import GGUFFile
from engine.machine.probes.memory import available_memory
from engine.plan.memory_plan import MemoryPlan
from engine.protocol import Device
from engine.protocol import Load as Request
from engine.runtimes.chosen import load_as, plan_for_load
from engine.runtimes.native import NativeRuntime
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from kernels.ops import Floats

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and its whole."""

WARM_UP = 32
"""Tokens through each side before the first round."""

REST = 0.05
"""Seconds between two measurements, in which spinning threads go to sleep."""


class Side(Protocol):
    """One of the two that are timed."""

    def start(self, prompt: Sequence[int]) -> None:
        """Forget the sequence; the next one begins with `prompt`, which is read by `forward`."""
        ...

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Append tokens, a batch at most; logits of the last."""
        ...

    def resume(self, tokens: Sequence[int], length: int) -> int:
        """Forget all behind the first `length` of `tokens`, which go on; how many need not be read again."""
        ...


class OurSide:
    """The native runtime. Every start is a sequence whose first token the cache has not seen."""

    def __init__(self, runtime: NativeRuntime) -> None:
        self._runtime = runtime
        self.forward = runtime.forward

    def start(self, prompt: Sequence[int]) -> None:
        cached = self._runtime.begin(prompt)
        assert cached == 0, "a prompt in the prefix cache would be timed as if it were read"

    def resume(self, tokens: Sequence[int], length: int) -> int:
        return self._runtime.begin(tokens)


class BaselineSide:
    """llama.cpp."""

    def __init__(self, baseline: LlamaCppReference) -> None:
        self._baseline = baseline
        self.forward = baseline.forward

    def start(self, prompt: Sequence[int]) -> None:
        self._baseline.clear()

    def resume(self, tokens: Sequence[int], length: int) -> int:
        if self._baseline.truncate(length):
            return length
        self._baseline.clear()  # a recurrent state cannot be cut back
        return 0


def bench(
    path: Path,
    load: Load,
    *,
    versus: bool = False,
    threads: int | None = None,
    traced: bool = False,
    device: Device = "auto",
    report: Report = lambda what, done, total: None,
) -> BenchResult:
    """Measure the model at `path`; `versus` llama.cpp on the CPU too. `traced` tokens come after all rounds.

    Raises `ModelFileError`, `UnsupportedModelError` for an architecture that only llama.cpp runs,
    `RequestError` when the load does not fit the model's context or there is no such `device`,
    `MemoryShortError`, `EngineError`.
    """
    from kernels.cpu.cores import default_threads

    count = default_threads() if threads is None else threads
    context = max(load.context, load.before + bench_trace.SPARE) if traced else load.context
    with ExitStack() as stack:
        file = stack.enter_context(GGUFFile.open(path))
        spec = read_spec(file)
        _check(path, spec, context)
        if versus and spec.ik_types:
            raise RequestError(
                f"{BASELINE} cannot read {path.name}",
                "It is quantised for ik_llama.cpp",
                "Measure it without --vs",
            )
        request = Request(str(path), context + 1, count, device=device)
        plan = plan_for_load(request, spec)
        _check_memory(path, spec, context, (plan is None) + versus)
        runtime = _load(file, spec, request, plan, report)
        stack.callback(runtime.close)
        sides: list[Side] = [OurSide(runtime)]
        if versus:
            report(f"loading in {BASELINE}", 0, 0)
            baseline = LlamaCppReference(path, load.context + 1, threads=count, batch=runtime.chunk)
            stack.callback(baseline.close)
            sides.append(BaselineSide(baseline))
        rounds = tuple(_rounds(sides, load, spec.vocab, runtime.chunk, count, report))
        trace = None
        if traced:
            report("tracing", 0, 0)
            time.sleep(REST)
            trace = bench_trace.traced(runtime, _trace_tokens(load, spec.vocab), load.prompt)
    position = load.before + load.generate // 2
    return BenchResult(
        model=spec.name or path.name,
        quantisation=spec.quantisation,
        threads=count,
        load=load,
        weights_bytes=spec.weights_bytes,
        token_bytes=spec.active_bytes_per_token + position * spec.kv_bytes_per_token,
        rounds=rounds,
        baseline_version=baseline_version() if versus else "",
        trace=trace,
        device=runtime.device,
        conditions=conditions(),
    )


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
            f"{context} tokens do not fit into the GPU's memory",
            f"{runtime.context} do",
            "Use a smaller --prompt, --gen or --context-fill",
        )
    return runtime


def _check(path: Path, spec: ModelSpec, context: int) -> None:
    if not spec.native:
        raise UnsupportedModelError(
            f"{path.name} cannot be measured",
            f"Only {BASELINE} runs it: {spec.unsupported}",
            f"Measure it with {BASELINE}'s own llama-bench",
        )
    if context > spec.context:
        raise RequestError(
            f"{context} tokens do not fit",
            f"{path.name} has a context of {spec.context}",
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
    sides: list[Side], load: Load, vocabulary: int, batch: int, threads: int, report: Report
) -> Iterator[Round]:
    rng = np.random.default_rng(0)
    names = ["ktchat", BASELINE]
    for side in sides:
        report("warming up", 0, 0)
        small = Load(min(WARM_UP, load.prompt), 1)
        _speed(side, small, [i % vocabulary for i in range(small.context)], batch)

    def measure(number: int, quiet: int) -> dict[str, Speed]:
        tokens = _tokens(rng, load.context + load.follow_up, vocabulary, number)
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


def _trace_tokens(load: Load, vocabulary: int) -> list[int]:
    count = load.before + bench_trace.SPARE
    return _tokens(np.random.default_rng(1), count, vocabulary, load.most_rounds)


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
