"""Our logits, llama.cpp's and the float32 reference's on one file, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.gguf import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec import ModelSpec
from kernels.ops import Floats, Ops
from kernels.reference import ReferenceOps
from tests.support.peer import LlamaPeer

TOKENS = np.random.default_rng(7).integers(0, 250, 150).tolist()
CHUNKS = (1, 31, 1, 30, 2, 33, 52)
"""Chunks whose starts and ends meet page edges (pages of 32) from both sides."""

PAGE_SIZE = 32
PAGES = 8


def nmse(values: Floats, expected: Floats) -> float:
    """Mean squared error over the mean square of `expected`."""
    return float(np.square(values - expected).mean() / np.square(expected).mean())


@dataclass(frozen=True)
class Errors:
    """NMSE against float32: ours in chunks, ours token by token, llama.cpp's likewise."""

    prefill: float
    decode: float
    peer_prefill: float
    peer_decode: float


def logits(
    path: Path, ops: Ops[Any, Any, Any], chunks: Sequence[int], tokens: Sequence[int] = TOKENS
) -> Floats:
    """Logits of every token, fed in `chunks`: (n, vocabulary). Pages are taken out of order."""
    file = GGUFFile.open(path)
    model: Transformer[Any, Any, Any] = Transformer(
        file, ModelSpec.from_file(file), ops, PAGES, PAGE_SIZE
    )
    table = page_table(list(range(PAGES))[::-1])
    rows, start = [], 0
    for count in chunks:
        part = np.asarray(tokens[start : start + count], dtype=np.int32)
        rows.append(model.forward_all(part, table, start))
        start += count
    return np.concatenate(rows)


def measure(path: Path, ops: Ops[Any, Any, Any], decode: int = 70) -> Errors:
    """Errors of `ops` and of llama.cpp on the file at `path`; `decode` tokens go one by one."""
    expected = logits(path, ReferenceOps(), [len(TOKENS)])
    prefill = logits(path, ops, CHUNKS)
    stepwise = logits(path, ops, [1] * decode)
    with LlamaPeer(path, 256, flash=False) as peer:
        peer_prefill = peer.logits(TOKENS)
        peer_stepwise = peer.logits(TOKENS[:decode], stepwise=True)
    return Errors(
        nmse(prefill, expected),
        nmse(stepwise, expected[:decode]),
        nmse(peer_prefill, expected),
        nmse(peer_stepwise, expected[:decode]),
    )
