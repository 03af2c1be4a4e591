"""Error against float32, over llama.cpp's, of every tiny model in every placement on the GPU.

`python -m tests.gpu.fidelity PART PARTS` checks one model in PARTS, beginning with number PART, and tells
each ratio; replies with and without captured passes are compared too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from kernels.ops import CacheKind
from kernels.reference import ReferenceOps
from tests.gpu import placements
from tests.gpu.children import Case, tell
from tests.gpu.placements import Device, Where
from tests.support import fidelity
from tests.support.llama_cpp_reference import LlamaCppReference
from tests.support.tiny import MODELS, quantise, tiny_model

TYPES = ("Q4_K", "Q8_0", "F16")
"""Types of all matrices, in the order in which they are checked: all models in one before the next."""
REPLY = 256
"""Tokens of a reply with and without captured passes."""


def main(part: int, parts: int) -> None:
    """Check every model whose turn it is, in all types."""
    with tempfile.TemporaryDirectory() as folder:
        models = [
            (key, tiny_model(key[0], Path(folder), variant=key[1], expert_type="F32"))
            for key in MODELS[part::parts]
        ]
        for number, type_name in enumerate(TYPES):
            for (architecture, variant), path in models:
                about = {"model": f"{architecture} {variant}", "type": type_name}
                quantised = quantise(path, type_name, only_experts=False)
                for case in ratios(quantised):
                    tell(about | case)
                if number == 0:
                    tell(about | {"same": same_replies(quantised)})


def ratios(path: Path, device: Device = placements.gpu) -> Iterator[Case]:
    """The ratio of errors of every placement; float32's and llama.cpp's logits are computed once.

    llama.cpp's KV cache is of the same kind as ours; in 8 bits it needs flash attention.
    """
    expected = fidelity.logits(path, ReferenceOps(), [len(fidelity.TOKENS)])
    theirs: dict[str, float] = {}
    for kv in get_args(CacheKind):
        with LlamaCppReference(path, 512, flash=kv == "q8", kv=kv) as reference:
            theirs[kv] = fidelity.typical_nmse(reference.logits(fidelity.TOKENS), expected)
    for where in placements.differ(_spec(path)):
        layers = placements.placement(_spec(path), where, len(fidelity.TOKENS)).layers
        with placements.op_sets(layers, device, streams=where.streams) as ops:
            got = fidelity.logits(path, ops, fidelity.CHUNKS, kv=where.kv)
        ours = fidelity.typical_nmse(got, expected)
        ratio = (ours + fidelity.ROUNDING) / (theirs[where.kv] + fidelity.ROUNDING)
        # No number compares as the worst there is.
        yield {"place": where.name, "ratio": ratio if np.isfinite(ratio) else 1e9}


def same_replies(path: Path, device: Device = placements.gpu) -> bool:
    """Whether captured passes with the experts on the CPU say what passes op by op say."""
    captured = _reply(path, placements.HOST, device)
    os.environ["KTCHAT_GPU_GRAPH"] = "0"
    try:
        return _reply(path, placements.HOST, device) == captured
    finally:
        del os.environ["KTCHAT_GPU_GRAPH"]


def _reply(path: Path, where: Where, device: Device) -> list[int]:
    """Greedy tokens, each of them fed back."""
    spec = _spec(path)
    pages = REPLY // fidelity.PAGE_SIZE + 1
    layers = placements.placement(spec, where, REPLY).layers
    with GGUFFile.open(path) as file, placements.op_sets(layers, device) as ops:
        model: Transformer[Any, Any, Any] = Transformer(file, spec, ops, pages, fidelity.PAGE_SIZE)
        table, reply = page_table(list(range(pages))[::-1]), [7]
        for position in range(REPLY):
            logits = model.forward(np.array(reply[-1:], np.int32), table, position)
            reply.append(int(logits.argmax()))
    return reply


def _spec(path: Path) -> ModelSpec:
    with GGUFFile.open(path) as file:
        return read_spec(file)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
