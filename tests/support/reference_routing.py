"""Which experts the float32 reference's routers choose: the oracle of what counters say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec.reader import read_spec
from kernels.ops import Ints
from kernels.reference import ReferenceOps

PAGE_SIZE = 32


class Routers(ReferenceOps):
    """The reference, noting every choice."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: list[Ints] = []

    def route(self, *arguments: Any) -> Any:
        routed = super().route(*arguments)
        self.chosen.append(routed[1].numpy())
        return routed


def reference_choices(path: Path, tokens: Sequence[int]) -> Ints:
    """The experts of each token in each layer that has some, (layers, n, top_k), all tokens in one pass."""
    pages = -(-len(tokens) // PAGE_SIZE) + 1
    ops = Routers()
    with GGUFFile.open(path) as file:
        model: Transformer[Any, Any, Any] = Transformer(
            file, read_spec(file), ops, pages, PAGE_SIZE, chunk=len(tokens)
        )
        model.forward_all(np.asarray(tokens, np.int32), page_table(list(range(pages))), 0)
    return np.stack(ops.chosen)


def uses(choices: Ints, experts: int) -> Any:
    """How many tokens chose each expert, (layers, experts)."""
    return np.stack([np.bincount(layer.reshape(-1), minlength=experts) for layer in choices])
