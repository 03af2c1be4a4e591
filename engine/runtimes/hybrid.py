"""Our own runtime: the transformer over an op set, a paged KV cache, prefix reuse.

Knows nothing of text, sampling or processes. One thread owns a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.cache.prefix import CachedSequence, PrefixCache
from engine.gguf import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.model.weights import Report
from engine.spec import ModelSpec
from kernels.ops import Floats, Ops

PAGE_SIZE = 32
"""Positions in a KV page."""

CHUNK = 512
"""Tokens prefilled at once: enough to reuse each expert's weights, few enough to cancel soon."""


class HybridRuntime:
    """A loaded model that answers one sequence at a time and remembers the earlier ones."""

    name = "hybrid"

    def __init__(
        self,
        file: GGUFFile,
        spec: ModelSpec,
        ops: Ops[Any, Any, Any],
        context: int,
        report: Report = lambda done, total: None,
    ) -> None:
        # One page more than the context, so that a branch can copy its partly filled page.
        pages = -(-context // PAGE_SIZE) + 1
        self._model: Transformer[Any, Any, Any] = Transformer(
            file, spec, ops, pages, PAGE_SIZE, report
        )
        self._prefixes = PrefixCache(pages, PAGE_SIZE, self._copy_page)
        self._sequence = CachedSequence()
        self._ops = ops
        self.context = context
        self.chunk = min(CHUNK, context)
        self.vocab_size = spec.vocab
        self.weights_bytes = spec.weights_bytes
        self.kv_bytes_per_token = spec.kv_bytes_per_token

    @classmethod
    def load(
        cls,
        file: GGUFFile,
        spec: ModelSpec,
        context: int,
        threads: int | None = None,
        report: Report = lambda done, total: None,
    ) -> HybridRuntime:
        """The model in `file` on this machine's CPU; `threads` None takes its physical cores."""
        from kernels.cpu import CpuOps

        return cls(file, spec, CpuOps(threads, pin=True), context, report)

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

    def close(self) -> None:
        """Stop the op set's threads."""
        close = getattr(self._ops, "close", None)
        if close is not None:
            close()

    def _copy_page(self, source: int, target: int) -> None:
        self._ops.copy_page(self._model.cache, source, target)
