"""llama.cpp as the baseline: the same file, the same tokens, its logits and its speed.

For `verify`, `bench` and the tests. The runtime that answers people with llama.cpp is
`engine.runtimes.llama_cpp`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from engine.common.llama_log import capture_log, logged_errors
from engine.common.units import count
from engine.errors import EngineError
from engine.runtimes.llama_buffers import has_amx, may_rearrange
from kernels.ops import CacheKind, Floats

BASELINE = "llama.cpp"


def baseline_version() -> str:
    """The version of llama-cpp-python, and what it goes without; empty: it is not installed."""
    try:
        return version("llama-cpp-python") + (" without AMX" if has_amx() else "")
    except PackageNotFoundError:
        return ""


def _quiet_library() -> Any:
    """llama_cpp with its log silenced: by default it writes on standard error."""
    import llama_cpp

    capture_log(llama_cpp)
    llama_cpp.llama_backend_init()
    return llama_cpp


class LlamaCppReference:
    """One model in llama.cpp on the CPU, one sequence, weights mapped.

    `flash` chooses flash attention (None: llama.cpp decides); `batch` tokens go through one graph.
    The KV cache is float16 or, for "q8", Q8_0, which llama.cpp has with flash attention only.
    `repack` lets llama.cpp rearrange weights in memory of its own, as it does by default. Raises
    `EngineError` when llama.cpp cannot load the file.
    """

    def __init__(
        self,
        path: Path,
        context: int,
        *,
        threads: int = 1,
        flash: bool | None = None,
        batch: int = 512,
        repack: bool = True,
        kv: CacheKind = "f16",
    ) -> None:
        self._lib = _quiet_library()
        self._model: Any = None
        self._context: Any = None
        self.batch = min(batch, context)
        self._load(path, repack)
        self._open(context, threads, flash, kv)

    def _load(self, path: Path, repack: bool) -> None:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = repack and may_rearrange()
        self._model = self._lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise EngineError(f"llama.cpp cannot load {path.name}", "; ".join(logged_errors()[:2]))
        vocabulary = self._lib.llama_model_get_vocab(self._model)
        self.vocab_size = int(self._lib.llama_vocab_n_tokens(vocabulary))

    def _open(self, context: int, threads: int, flash: bool | None, kv: CacheKind) -> None:
        params = self._lib.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = self.batch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = -1 if flash is None else int(flash)
        if kv == "q8":
            params.type_k = params.type_v = self._lib.GGML_TYPE_Q8_0
        params.no_perf = True
        self._context = self._lib.llama_init_from_model(self._model, params)
        if not self._context:
            self.close()
            raise EngineError("llama.cpp cannot make a context", f"{count(context)} tokens")
        self.clear()

    def clear(self) -> None:
        """Forget the sequence: the next token is at position 0."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._position = 0

    def truncate(self, length: int) -> bool:
        """Keep the first `length` tokens of the sequence; False, and all of it, where a state forbids that."""
        memory = self._lib.llama_get_memory(self._context)
        cut = bool(self._lib.llama_memory_seq_rm(memory, 0, length, -1))
        if cut:
            self._position = length
        return cut

    def forward(self, tokens: Sequence[int], *, every: bool = False) -> Floats:
        """Append tokens; logits of the last, (vocab,), or of `every` one, (n, vocab), float32."""
        parts = [
            self._decode(tokens[i : i + self.batch], every)
            for i in range(0, len(tokens), self.batch)
        ]
        return np.concatenate(parts) if every else parts[-1][0]

    def logits(self, tokens: Sequence[int], *, stepwise: bool = False) -> Floats:
        """Logits of every position of a fresh sequence: (n, vocab). `stepwise` decodes one by one."""
        self.clear()
        if stepwise:
            return np.stack([self.forward([token]) for token in tokens])
        return self.forward(tokens, every=True)

    def _decode(self, tokens: Sequence[int], every: bool) -> Floats:
        count = len(tokens)
        batch = self._lib.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            for i, token in enumerate(tokens):
                batch.token[i] = token
                batch.pos[i] = self._position + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = every or i == count - 1
            code = self._lib.llama_decode(self._context, batch)
        finally:
            self._lib.llama_batch_free(batch)
        if code != 0:
            raise EngineError("llama.cpp failed to decode", f"it returned {code}")
        self._position += count
        pointer = self._lib.llama_get_logits(self._context)
        rows = count if every else 1
        return np.ctypeslib.as_array(pointer, (rows, self.vocab_size)).copy()

    def close(self) -> None:
        """Free the model; closing twice is harmless."""
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> LlamaCppReference:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
