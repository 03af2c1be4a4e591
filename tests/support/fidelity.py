"""Our logits, llama.cpp's and the float32 reference's on one file, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec.reader import read_spec
from kernels.ops import CacheKind, Floats, Ops
from kernels.reference import ReferenceOps
from tests.support.llama_cpp_reference import LlamaCppReference

TOKENS = np.random.default_rng(7).integers(0, 250, 400).tolist()
"""Enough that chance moves the ratio of two errors by about one hundredth."""

CHUNKS = (1, 31, 1, 30, 2, 33, *[1] * 40, 62, 200)
"""Prefill and decode mixed; starts and ends meet page edges (pages of 32) from both sides."""

ROUNDING = 1e-11
"""NMSE of float32 arithmetic itself, which neither side can go below."""

PAGE_SIZE = 32
PAGES = 13


torch.set_num_threads(1)  # the models are tiny: a second thread costs more than it saves


def nmse(values: Floats, expected: Floats) -> float:
    """Mean squared error over the mean square of `expected`."""
    return float(np.square(values - expected).mean() / np.square(expected).mean())


def typical_nmse(values: Floats, expected: Floats) -> float:
    """NMSE of the tokens without the worst tenth.

    Where two experts' scores nearly tie, any rounding may choose the other one; that token's error is
    then a hundred times the others', for either side by chance.
    """
    errors = np.sort(np.square(values - expected).mean(axis=1))
    return float(errors[: len(errors) * 9 // 10].mean() / np.square(expected).mean())


def logits(
    path: Path,
    ops: Ops[Any, Any, Any] | Sequence[Ops[Any, Any, Any]],
    chunks: Sequence[int],
    tokens: Sequence[int] = TOKENS,
    kv: CacheKind = "f16",
) -> Floats:
    """Logits of every token, fed in `chunks`: (n, vocabulary). Pages are taken out of order.

    `ops` is one op set, or one for every layer.
    """
    file = GGUFFile.open(path)
    model: Transformer[Any, Any, Any] = Transformer(
        file, read_spec(file), ops, PAGES, PAGE_SIZE, kv=kv
    )
    table = page_table(list(range(PAGES))[::-1])
    rows, start = [], 0
    for count in chunks:
        part = np.asarray(tokens[start : start + count], dtype=np.int32)
        # One token runs as it does in a conversation: recorded the first time, then repeated.
        one = count == 1
        rows.append(
            model.forward(part, table, start)[None]
            if one
            else model.forward_all(part, table, start)
        )
        start += count
    return np.concatenate(rows)


def error_ratio(path: Path, ops: Ops[Any, Any, Any], kv: CacheKind = "f16") -> float:
    """Typical NMSE of `ops` against float32, over llama.cpp's, on the file at `path`, with KV caches of one kind."""
    expected = logits(path, ReferenceOps(), [len(TOKENS)])
    ours = typical_nmse(logits(path, ops, CHUNKS, kv=kv), expected)
    with LlamaCppReference(path, 512, flash=kv == "q8", kv=kv) as reference:
        theirs = typical_nmse(reference.logits(TOKENS), expected)
    return (ours + ROUNDING) / (theirs + ROUNDING)
