"""Float32 logits of several sequences at once: a weight is dequantised once for all of them.

What a sequence has seen lies in a cache of its own; every other op takes the rows of all sequences, one
sequence after another, as it takes those of one. This needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec.spec import ModelSpec
from kernels.ops import CacheShape, Floats, Tensor
from kernels.recurrent import StateShape
from kernels.reference import ReferenceOps
from kernels.reference_recurrent import Weight
from kernels.sizes import PAGE_SIZE

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


def float32_logits(
    file: GGUFFile,
    spec: ModelSpec,
    sequences: Sequence[Sequence[int]],
    loading: Report = lambda done, total: None,
    computing: Report = lambda done, total: None,
) -> Floats:
    """Logits of every position of sequences of one length: (sequences, length, vocabulary)."""
    tokens = np.asarray(sequences, dtype=np.int32)
    count, length = tokens.shape
    pages = -(-length // PAGE_SIZE)
    total = sum(info.nbytes for info in file.tensors.values())
    ops = SideBySide(WatchedOps(lambda done: computing(min(done, total), total)), count)
    model: Transformer[Any, Any, Any] = Transformer(file, spec, ops, pages, PAGE_SIZE, loading)
    with torch.inference_mode():
        logits = model.forward_all(tokens.reshape(-1), page_table(list(range(pages))), 0)
    computing(total, total)
    return logits.reshape(count, length, -1)


class Each(list[Any]):
    """One cache or recurrent state for each sequence."""


class SideBySide:
    """An op set that computes `count` sequences of one length as if they were one."""

    name = "reference"

    def __init__(self, ops: ReferenceOps, count: int) -> None:
        self._ops, self._count = ops, count

    def kv_cache(self, shape: CacheShape) -> Each:
        """A cache for each sequence."""
        return Each(self._ops.kv_cache(shape) for _ in range(self._count))

    def recurrent_state(self, shape: StateShape) -> Each:
        """A state for each sequence."""
        return Each(self._ops.recurrent_state(shape) for _ in range(self._count))

    def __getattr__(self, name: str) -> Any:
        """An op: sequence by sequence where it is given what they have seen, all at once elsewhere."""
        return partial(self._run, getattr(self._ops, name))

    def _run(self, op: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not any(isinstance(arg, Each) for arg in (*args, *options.values())):
            return op(*args, **options)
        results = [
            op(
                *(self._part(arg, i) for arg in args),
                **{name: self._part(arg, i) for name, arg in options.items()},
            )
            for i in range(self._count)
        ]
        return None if results[0] is None else torch.cat(results)

    def _part(self, arg: Any, number: int) -> Any:
        """A sequence's cache or state, its rows of activations; anything else is for all."""
        if isinstance(arg, Each):
            return arg[number]
        return arg.chunk(self._count)[number] if isinstance(arg, torch.Tensor) else arg


class WatchedOps(ReferenceOps):
    """Reports how many bytes of weights were dequantised, each counted once; what was made at load may be larger."""

    def __init__(self, report: Callable[[int], None]) -> None:
        super().__init__(keep=False)
        self._report = report
        self._seen: set[tuple[str, int | None]] = set()
        self._done = 0

    def matrix(self, tensor: Tensor) -> Weight:
        """Weights that are dequantised whenever they are used."""
        return WatchedWeight(tensor, None, self._saw)

    def _saw(self, tensor: Tensor, index: int | None) -> None:
        if (tensor.name, index) not in self._seen:
            self._seen.add((tensor.name, index))
            self._done += tensor.data.nbytes // (1 if index is None else tensor.shape[0])
        self._report(self._done)


@dataclass(frozen=True, slots=True)
class WatchedWeight(Weight):
    """Tells when it is dequantised."""

    saw: Callable[[Tensor, int | None], None]

    def float(self, index: int | None = None) -> torch.Tensor:
        """As `Weight.float`."""
        self.saw(self.tensor, index)
        return super(WatchedWeight, self).float(index)
