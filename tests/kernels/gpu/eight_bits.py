"""`python -m tests.kernels.gpu.eight_bits [TYPE ...]`: what activations in 8 bits cost on the GPU, over llama.cpp's error.

A tiny qwen3moe whose matrices all have one type goes through the GPU's op set in few rows, as a token does, and
through llama.cpp on its CPU; both are held against float32. A sequence counts once (`engine.evaluation.fidelity`).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np

from engine.evaluation import fidelity
from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec.reader import read_spec
from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.quant.formats import FORMATS
from kernels.ops import Floats
from kernels.reference import ReferenceOps
from tests.kernels.gpu.gpu_cases import DEVICE, unchecked
from tests.support.llama_cpp_reference import LlamaCppReference
from tests.support.tiny import quantise, tiny_model
from tests.support.tiny_shapes import SHAPES

TYPES = tuple(name for name, form in FORMATS.items() if form.dot is not None)
"""Those that multiply with activations in 8 bits."""
KEY = "qwen3moe", "qwen3moe"
SMALL = replace(SHAPES[KEY], layers=1, experts=8, top_k=2)
"""Few programs for the interpreter."""
CHUNKS = (7, 1)
"""Few rows, and one."""
DOUBT = 0.05


def ratio(name: str, folder: Path, sequences: int) -> fidelity.Ratio:
    """Our error over llama.cpp's where all matrices are of this type."""
    path = quantise(
        tiny_model(KEY[0], folder, variant=KEY[1], expert_type="F32"), name, only_experts=False
    )
    tokens = np.random.default_rng(3).integers(0, 250, (sequences, sum(CHUNKS)), dtype=np.int32)
    wanted = _logits(path, ReferenceOps(), tokens)
    with LlamaCppReference(path, 64, flash=False) as reference:
        theirs = [reference.logits(row.tolist()) for row in tokens]
    ours = _logits(path, GpuOps(DEVICE), tokens)
    errors = (
        [fidelity.positions(*pair) for pair in zip(found, wanted, strict=True)]
        for found in (ours, theirs)
    )
    return fidelity.ratio(*errors, DOUBT)


def _logits(path: Path, ops: Any, sequences: np.ndarray) -> list[Floats]:
    pages = page_table([0])
    with GGUFFile.open(path) as file:
        model: Transformer[Any, Any, Any] = Transformer(file, read_spec(file), ops, 1, 32)
        return [_of_sequence(model, tokens, pages) for tokens in sequences]


def _of_sequence(model: Transformer[Any, Any, Any], tokens: np.ndarray, pages: Any) -> Floats:
    starts = np.cumsum([0, *CHUNKS[:-1]]).tolist()
    parts = zip(starts, CHUNKS, strict=True)
    return np.concatenate(
        [model.forward_all(tokens[at : at + count], pages, at) for at, count in parts]
    )


@contextmanager
def small_model() -> Iterator[None]:
    """Inside, the tiny model is a layer high."""
    before, SHAPES[KEY] = SHAPES[KEY], SMALL
    try:
        with unchecked():
            yield
    finally:
        SHAPES[KEY] = before


def main(names: Sequence[str], sequences: int = 12) -> int:
    """Print a line for each type; 1 where the bar is missed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder, small_model():
        for name in names or TYPES:
            found = ratio(name, Path(folder), sequences)
            missed += found.value > fidelity.ALLOWED
            words = f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
            sys.stdout.write(f"{name:7} {words} of llama.cpp's error, {sequences} sequences\n")
            sys.stdout.flush()
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
