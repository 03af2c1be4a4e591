"""Fidelity: our logits and llama.cpp's against float32, on a person's own file.

The same tokens go through our op sets as a conversation would, through llama.cpp (float16 KV cache,
no flash attention: its most exact settings) and through the float32 reference ops, which dequantise
one matrix at a time. This needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import KtchatError, ModelFileError, UnsupportedModelError
from engine.evaluation.fidelity import (
    ROUNDING,
    Comparison,
    Position,
    Ratio,
    comparison,
    position,
    ratio,
)
from engine.evaluation.llama_cpp_reference import BASELINE, LlamaCppReference, baseline_version
from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.plan.placement import Placement
from engine.protocol import Computed, Device, KvKind, Load
from engine.runtimes.chosen import plan_for_load
from engine.runtimes.gpu import cuda_device
from engine.runtimes.placed import computed, op_sets
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from engine.text.tokenizer import Part, Tokenizer
from kernels.cpu import CpuOps
from kernels.ops import Floats, Ops
from kernels.sizes import PAGE_SIZE

TEXTS = (
    "A mixture-of-experts model keeps many small networks in every layer and asks only a few of"
    " them for each token. The router looks at the token, scores all experts, and sends it to the"
    " best ones; their answers are weighted and added. So a model of 235 billion parameters reads"
    " no more than 22 billion of them for one word.\n\n```python\ndef route(scores, top_k=8):\n"
    "    chosen = sorted(range(len(scores)), key=scores.__getitem__)[-top_k:]\n"
    "    total = sum(scores[i] for i in chosen)\n"
    "    return {i: scores[i] / total for i in chosen}\n```\n\n"
    "Die Katze saß auf der Fensterbank und sah dem Regen zu. 今天天气很好，我们去公园散步吧。"
    " En 1969, deux hommes ont marché sur la Lune. 3.14159 × 2 = 6.28318; 17 + 25 = 42.",
    "Question: what is the capital of France, and which river runs through it?\nAnswer: Paris, and"
    " the Seine. Question: name three primes above 100.\nAnswer: 101, 103 and 107.",
)
"""What the models read: prose, code, other languages, numbers; then a short text from its start."""

MAX_TOKENS = (256, 64)
"""Tokens taken of each text, of which the last `STEPS` are decoded one by one."""

STEPS = (32, 63)

Report = Callable[[str, int, int], None]
"""Called with a stage's name, what is done of it and its whole."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A model's result. `tokens` positions were compared."""

    model: str
    architecture: str
    quantisation: str
    tokens: int
    ours: Comparison
    baseline: Comparison
    total: Ratio
    decode: Ratio
    baseline_version: str
    device: Computed = "CPU"
    """What computed our logits."""

    @property
    def ratio(self) -> float:
        """Our typical error over llama.cpp's."""
        return self.total.value

    @property
    def faithful(self) -> bool:
        """Whether our error is at most `ALLOWED` times llama.cpp's, in all and when decoding."""
        return self.total.allowed and self.decode.allowed

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if not math.isfinite(self.ours.total.nmse):
            return "not faithful: some of our logits are not numbers"
        if self.ours.total.typical <= 2 * ROUNDING:
            return "faithful: our logits are float32's, up to rounding"
        if self.faithful:
            return f"faithful: our error is {self.ratio:.2f} of {BASELINE}'s"
        worst = max(self.total, self.decode, key=lambda ratio: ratio.low)
        return f"not faithful: our error is {worst.value:.2f} times {BASELINE}'s"


def verify(
    path: Path,
    threads: int | None = None,
    report: Report | None = None,
    device: Device = "auto",
    kv: KvKind = "f16",
) -> Verification:
    """Compare three implementations on the model at `path`; ours where a conversation would run.

    Raises `ModelFileError`, `UnsupportedModelError` for an architecture that only llama.cpp runs,
    `KtchatError` when torch is missing, `RequestError` for a GPU that cannot be used.
    """
    tell = report or (lambda stage, done, total: None)
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        if not spec.native:
            raise UnsupportedModelError(
                f"{path.name} cannot be verified",
                f"Only {BASELINE} runs it, so there is nothing to compare: {spec.unsupported}",
            )
        sequences = _sequences(path, file, spec)
        expected = _reference(file, spec, sequences, threads, tell)
        if not all(np.isfinite(logits).all() for logits in expected):
            raise ModelFileError(
                f"{path.name} cannot be verified",
                "Its weights give logits that are not numbers",
                "Use another version of the model",
            )
        context = min(spec.context, max(MAX_TOKENS))
        plan = plan_for_load(Load(str(path), context, device=device, kv=kv), spec)
        placement = plan.placement if plan else None
        ours = _measure(_ours(file, spec, sequences, threads, placement, tell), expected)
        baseline = _measure(_baseline(path, sequences, threads, tell), expected)
    return Verification(
        model=spec.name or path.name,
        architecture=spec.architecture,
        quantisation=spec.quantisation,
        tokens=sum(len(tokens) for tokens, _ in sequences),
        ours=comparison(*ours),
        baseline=comparison(*baseline),
        total=ratio([*ours[0], *ours[1]], [*baseline[0], *baseline[1]]),
        decode=ratio(ours[1], baseline[1]),
        baseline_version=baseline_version(),
        device=computed(placement, spec) if placement else "CPU",
    )


Sequences = Sequence[tuple[list[int], int]]
"""Tokens, and how many of them go in at once; the rest is decoded one by one."""


def _sequences(path: Path, file: GGUFFile, spec: ModelSpec) -> Sequences:
    tokenizer = Tokenizer.open(path, file)
    try:
        out = []
        for text, most, steps in zip(TEXTS, MAX_TOKENS, STEPS, strict=True):
            tokens = tokenizer.encode([Part(text, special=False)])[: min(most, spec.context)]
            out.append((tokens, max(1, len(tokens) - steps)))
        return out
    finally:
        tokenizer.close()


def _model(
    file: GGUFFile,
    spec: ModelSpec,
    ops: Ops[Any, Any, Any] | Sequence[Ops[Any, Any, Any]],
    kv: KvKind = "f16",
) -> Transformer[Any, Any, Any]:
    return Transformer(file, spec, ops, -(-max(MAX_TOKENS) // PAGE_SIZE), PAGE_SIZE, kv=kv)


def _table() -> Any:
    return page_table(list(range(-(-max(MAX_TOKENS) // PAGE_SIZE))))


def _reference(
    file: GGUFFile, spec: ModelSpec, sequences: Sequences, threads: int | None, report: Report
) -> list[Floats]:
    """Float32 logits of every position, all tokens of a sequence at once."""
    try:
        import torch

        from kernels.reference import ReferenceOps
    except ImportError as error:
        raise KtchatError(
            "verify needs torch, which is not installed", "", "pip install 'ktchat[verify]'"
        ) from error

    if threads is not None:
        torch.set_num_threads(threads)
    total = spec.layers * len(sequences)

    class CountingOps(ReferenceOps):
        """Every layer adds its attention's output exactly once."""

        done = 0

        def linear_add(self, x: Any, weight: Any, residual: Any, bias: Any = None) -> None:
            super().linear_add(x, weight, residual, bias)
            self.done += 1
            report("float32", self.done, total)

    with torch.inference_mode():
        model = _model(file, spec, CountingOps(keep=False))
        return [
            model.forward_all(np.asarray(tokens, dtype=np.int32), _table(), 0)
            for tokens, _ in sequences
        ]


def _ours(
    file: GGUFFile,
    spec: ModelSpec,
    sequences: Sequences,
    threads: int | None,
    placement: Placement | None,
    report: Report,
) -> Iterator[tuple[Floats, Floats]]:
    """Logits of the prompt's positions and of the decoded ones, by our own op sets."""
    with ExitStack() as opened:
        if placement is None:
            ops: Any = opened.enter_context(closing(CpuOps(threads)))
            model = _model(file, spec, ops)
        else:
            each, _ = op_sets(placement, cuda_device, threads, opened)
            model = _model(file, spec, each, placement.kv)
        for tokens, at_once, done, total in _progress(sequences):
            ids = np.asarray(tokens, dtype=np.int32)
            prefill = model.forward_all(ids[:at_once], _table(), 0).copy()
            steps = []
            for i in range(at_once, len(ids)):
                steps.append(model.forward(ids[i : i + 1], _table(), i).copy())
                report("ktchat", done + i + 1, total)
            yield prefill, _stack(steps, prefill)


def _baseline(
    path: Path, sequences: Sequences, threads: int | None, report: Report
) -> Iterator[tuple[Floats, Floats]]:
    """The same by llama.cpp."""
    context = max(MAX_TOKENS)
    with LlamaCppReference(path, context, threads=_threads(threads), flash=False) as baseline:
        for tokens, at_once, done, total in _progress(sequences):
            baseline.clear()
            prefill = baseline.forward(tokens[:at_once], every=True)
            steps = []
            for i in range(at_once, len(tokens)):
                steps.append(baseline.forward([tokens[i]]))
                report(BASELINE, done + i + 1, total)
            yield prefill, _stack(steps, prefill)


def _stack(rows: list[Floats], like: Floats) -> Floats:
    return np.stack(rows) if rows else like[:0]


def _progress(sequences: Sequences) -> Iterator[tuple[list[int], int, int, int]]:
    done, total = 0, sum(len(tokens) for tokens, _ in sequences)
    for tokens, at_once in sequences:
        yield tokens, at_once, done, total
        done += len(tokens)


def _threads(threads: int | None) -> int:
    from kernels.cpu.cores import default_threads

    return default_threads() if threads is None else threads


def _measure(
    results: Iterator[tuple[Floats, Floats]], expected: list[Floats]
) -> tuple[list[Position], list[Position]]:
    """The positions of the prompts and the decoded ones."""
    prefill: list[Position] = []
    decode: list[Position] = []
    for (first, then), reference in zip(results, expected, strict=True):
        prefill += map(position, first, reference[: len(first)])
        decode += map(position, then, reference[len(first) :])
    return prefill, decode
