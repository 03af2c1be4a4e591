"""Our own runtime: the transformer over an op set, a paged KV cache, prefix reuse.

One thread owns a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.model.weights import Report
from engine.protocol import Computed
from engine.runtimes.prefix_cache import CachedSequence, PrefixCache
from engine.spec.spec import ModelSpec
from kernels import sizes
from kernels.ops import Floats
from kernels.timing import Rows, Watched

PAGE_SIZE = sizes.PAGE_SIZE
"""Positions in a KV page."""

CHUNK = sizes.PROMPT_CHUNK
"""Tokens prefilled at once: enough to reuse each expert's weights, few enough to cancel soon."""


class NativeRuntime:
    """A loaded model that answers one sequence at a time and remembers the earlier ones."""

    name = "native"

    def __init__(
        self,
        model: Transformer[Any, Any, Any],
        context: int,
        pages: int,
        op_sets: Sequence[Any],
        device: Computed = "CPU",
    ) -> None:
        """`model` has caches of `pages` pages; `op_sets` are closed with the runtime, in this order."""
        self._model, self._op_sets = model, op_sets
        self._prefixes = PrefixCache(pages, PAGE_SIZE, model.copy_page)
        self._sequence = CachedSequence()
        self.device: Computed = device
        self.context = context
        self.chunk = min(CHUNK, context)
        self.vocab_size = model.spec.vocab
        self.weights_bytes = model.spec.weights_bytes
        self.kv_bytes_per_token = model.kv_bytes_per_token

    @classmethod
    def load(
        cls,
        file: GGUFFile,
        spec: ModelSpec,
        context: int,
        threads: int | None = None,
        report: Report = lambda done, total: None,
    ) -> NativeRuntime:
        """The model in `file` on this machine's CPU; `threads` None takes its physical cores."""
        from kernels.cpu import CpuOps

        ops, pages = CpuOps(threads, pin=True), pages_for(context)
        return cls(Transformer(file, spec, ops, pages, PAGE_SIZE, report), context, pages, [ops])

    def begin(self, tokens: Sequence[int]) -> int:
        """Make the sequence current that shares most with `tokens`; how many tokens it shares."""
        self._sequence = self._prefixes.begin(tokens)
        return len(self._sequence.tokens)

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Append up to `chunk` tokens to the current sequence; logits of the last, (vocabulary,)."""
        sequence = self._sequence
        self._prefixes.reserve(sequence, len(tokens))
        logits = self._model.forward(
            np.asarray(tokens, dtype=np.int32), page_table(sequence.pages), len(sequence.tokens)
        )
        sequence.tokens.extend(tokens)
        return logits

    def watch(self, rows: Rows | None) -> None:
        """The times of all work go to `rows` from now on; None ends that."""
        for stage in self._model.stages:
            assert isinstance(stage.ops, Watched), (
                f"{stage.ops.name} does not say how long ops take"
            )
            stage.ops.watch(rows)

    def close(self) -> None:
        """Free everything; stop the op sets' threads."""
        for ops in self._op_sets:
            ops.close()


def pages_for(context: int) -> int:
    """Pages of a context, and one more, so that a branch can copy its partly filled page."""
    return -(-context // PAGE_SIZE) + 1
