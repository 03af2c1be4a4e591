"""Fidelity: our logits and llama.cpp's against float32, on a person's own file.

The same tokens go through our op sets as a conversation would, through llama.cpp (float16 KV cache,
no flash attention: its most exact settings) and through the float32 reference ops, which dequantise
one matrix at a time. This needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.common.packages import pip, require_llama_cpp
from engine.errors import MissingPackageError, ModelFileError, UnsupportedModelError
from engine.evaluation.fidelity import Measured, positions
from engine.evaluation.llama_cpp_reference import BASELINE, LlamaCppReference
from engine.evaluation.sequences import LENGTH, Sequence, draw
from engine.evaluation.verification import ROUNDS, Verification, verification
from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.plan.placement import Placement
from engine.protocol import Device, KvKind, Load
from engine.runtimes.chosen import kv_kind, plan_for_load
from engine.runtimes.gpu import cuda_device
from engine.runtimes.placed import computed, op_sets
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from engine.text.tokenizer import Tokenizer
from kernels.cpu import CpuOps
from kernels.cpu.cores import default_threads
from kernels.ops import Floats
from kernels.sizes import PAGE_SIZE

PATIENCE = 20 * 60.0
"""Seconds after which no round begins."""

LOGITS = 1 << 30
"""Bytes of float32's logits that are kept at once; so many sequences go through each implementation together."""

Report = Callable[[str, int, int], None]
"""Called with a stage's name, what is done of it and its whole (0: unknown)."""


def verify(
    path: Path,
    threads: int | None = None,
    report: Report | None = None,
    device: Device = "auto",
    kv: KvKind = "f16",
    seed: int = 0,
) -> Verification:
    """Compare three implementations on the model at `path`; ours where a conversation would run.

    It measures on until there is a verdict, `ROUNDS` are over or `PATIENCE` is. `seed` draws what is read.
    Raises `ModelFileError`, `UnsupportedModelError` for an architecture that only llama.cpp runs,
    `KtchatError` when torch is missing, `RequestError` for a GPU that cannot be used.
    """
    _check_torch(threads)
    require_llama_cpp("verify")
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        if not spec.native:
            raise UnsupportedModelError(
                f"{path.name} cannot be verified",
                f"Only {BASELINE} runs it, so there is nothing to compare: {spec.unsupported}",
            )
        if spec.ik_types:
            raise UnsupportedModelError(
                f"{path.name} cannot be verified",
                f"It is quantised for ik_llama.cpp, and {BASELINE}, with which we compare, cannot open it",
                "Verify a version of the model in one of llama.cpp's types, such as Q4_K_M",
            )
        context = min(spec.context, LENGTH)
        load = Load(str(path), context, device=device, kv=kv)
        plan = plan_for_load(load, spec)
        placement = plan.placement if plan else None
        kind = kv_kind(load, spec)
        engines = Engines(path, file, spec, threads, placement, kind, report or _silent)
        with closing(Tokenizer.open(path, file)) as tokenizer:
            return _rounds(engines, tokenizer, seed)


def _silent(stage: str, done: int, total: int) -> None:
    """Nobody is told."""


def _check_torch(threads: int | None) -> None:
    try:
        import torch
    except ImportError as error:
        todo = "Install it: " + pip("'torch>=2.11'")
        raise MissingPackageError("verify needs torch, which is not installed", "", todo) from error
    if threads is not None:
        torch.set_num_threads(threads)


def _rounds(engines: Engines, tokenizer: Tokenizer, seed: int) -> Verification:
    """Rounds of sequences until there is a verdict."""
    spec, placement = engines.spec, engines.placement
    ours: list[Measured] = []
    baseline: list[Measured] = []
    end = time.monotonic() + PATIENCE
    for count in ROUNDS:
        for numbers in _batches(range(len(ours), count), tokenizer.vocab_size):
            one, other = engines.measure(draw(tokenizer, seed, numbers, spec.context), numbers)
            ours += one
            baseline += other
        result = verification(
            spec.name or engines.path.name,
            spec.architecture,
            spec.quantisation,
            seed,
            computed(placement, spec) if placement else "CPU",
            ours,
            baseline,
        )
        if result.faithful is not None or time.monotonic() > end:
            break
    return result


def _batches(numbers: range, vocabulary: int) -> Iterator[range]:
    """As few as `LOGITS` allows, of about one size."""
    most = max(1, LOGITS // (LENGTH * vocabulary * np.dtype(np.float32).itemsize))
    count = -(-len(numbers) // most)
    for i in range(count):
        yield numbers[len(numbers) * i // count : len(numbers) * (i + 1) // count]


@dataclass(frozen=True, slots=True)
class Engines:
    """The three implementations of one model. Each is loaded for a batch and freed before the next comes."""

    path: Path
    file: GGUFFile
    spec: ModelSpec
    threads: int | None
    placement: Placement | None
    kv: KvKind
    report: Report

    def measure(
        self, sequences: list[Sequence], numbers: range
    ) -> tuple[list[Measured], list[Measured]]:
        """Our errors and llama.cpp's. `numbers` are those of the sequences, from 0."""
        named = f"sequences {numbers[0] + 1} to {numbers[-1] + 1}"
        expected = self._float32(sequences, named)
        if not np.isfinite(expected).all():
            raise ModelFileError(
                f"{self.path.name} cannot be verified",
                "Its weights give logits that are not numbers",
                "Use another version of the model",
            )
        ours = _measured(self._ours(sequences, named), sequences, expected)
        return ours, _measured(self._baseline(sequences, named), sequences, expected)

    def _float32(self, sequences: list[Sequence], named: str) -> Floats:
        from engine.evaluation.float32 import float32_logits

        tokens = [sequence.tokens for sequence in sequences]
        loading, computing = self._stages(f"{named}: float32")
        return float32_logits(self.file, self.spec, tokens, loading, computing)

    def _ours(self, sequences: list[Sequence], named: str) -> Iterator[Floats]:
        """Logits of every position, (length, vocabulary), by our own op sets."""
        pages = -(-LENGTH // PAGE_SIZE)
        table = page_table(list(range(pages)))
        loading, computing = self._stages(f"{named}: ktchat")
        with ExitStack() as opened:
            if self.placement is None:
                ops: Any = opened.enter_context(closing(CpuOps(self.threads)))
            else:
                ops, _ = op_sets(self.placement, cuda_device, self.threads, opened)
            model: Transformer[Any, Any, Any] = Transformer(
                self.file, self.spec, ops, pages, PAGE_SIZE, loading, kv=self.kv
            )

            def forward(tokens: list[int], start: int) -> Floats:
                ids = np.asarray(tokens, dtype=np.int32)
                every = model.forward_all if start == 0 else model.forward
                return every(ids, table, start).copy()

            yield from _logits(sequences, forward, computing)

    def _baseline(self, sequences: list[Sequence], named: str) -> Iterator[Floats]:
        """The same by llama.cpp, with a KV cache of the same kind."""
        threads = default_threads() if self.threads is None else self.threads
        loading, computing = self._stages(f"{named}: {BASELINE}")
        loading(0, 0)
        flash = self.kv == "q8"  # llama.cpp has it with flash attention only
        with LlamaCppReference(
            self.path, LENGTH, threads=threads, flash=flash, kv=self.kv
        ) as baseline:

            def forward(tokens: list[int], start: int) -> Floats:
                if start == 0:
                    baseline.clear()
                return baseline.forward(tokens, every=start == 0)

            yield from _logits(sequences, forward, computing)

    def _stages(self, name: str) -> tuple[Callable[[int, int], None], Callable[[int, int], None]]:
        def loading(done: int, total: int) -> None:
            self.report(f"{name}, loading", done, total)

        def computing(done: int, total: int) -> None:
            self.report(name, done, total)

        return loading, computing


def _logits(
    sequences: list[Sequence],
    forward: Callable[[list[int], int], Floats],
    report: Callable[[int, int], None],
) -> Iterator[Floats]:
    """Each sequence's: its prompt at once, which begins it, then token by token."""
    done, total = 0, sum(len(sequence.tokens) for sequence in sequences)
    for sequence in sequences:
        report(done, total)
        rows = [forward(sequence.tokens[: sequence.prompt], 0)]
        done += sequence.prompt
        for i in range(sequence.prompt, len(sequence.tokens)):
            report(done, total)
            rows.append(forward(sequence.tokens[i : i + 1], i)[None])
            done += 1
        report(done, total)
        yield np.concatenate(rows)


def _measured(
    results: Iterable[Floats], sequences: list[Sequence], expected: Floats
) -> list[Measured]:
    out = []
    for values, sequence, reference in zip(results, sequences, expected, strict=True):
        each = positions(values, reference)
        out.append(Measured(each[: sequence.prompt], each[sequence.prompt :]))
    return out
