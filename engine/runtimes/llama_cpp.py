"""llama.cpp as a runtime: any architecture that it runs, on the CPU, one sequence of tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.common.llama_log import capture_log, clear_errors, logged_errors
from engine.errors import EngineError, MemoryShortError, ModelFileError, UnsupportedModelError
from engine.protocol import Computed
from engine.runtimes.base import CancelFlag, CancelledError, Floats, LoadProgress
from engine.runtimes.llama_buffers import may_rearrange
from engine.runtimes.prefix_cache import common_prefix

CHUNK = 512
"""Tokens of one graph. A cancelled one is given up between two of its operations."""

_ABORTED = 2


@cache
def _library() -> Any:
    """llama_cpp's C API. Its log goes to standard error from warnings on, and never elsewhere."""
    import llama_cpp.llama_cpp as library

    capture_log(library, shown=True)
    library.llama_backend_init()
    return library


@cache
def _abort_callback(library: Any) -> Any:
    """Whether a `CancelFlag` is raised, asked from native code without Python's lock.

    strlen of the flag's text is 0 or 1, which is what ggml wants to know.
    """
    return ctypes.cast(ctypes.CDLL(None).strlen, library.ggml_abort_callback)


class LlamaCppRuntime:
    """A loaded model and its one sequence."""

    name = "llama.cpp"
    device: Computed = "CPU"

    def __init__(
        self, library: Any, model: Any, context: Any, tokens: int, kv_bytes_per_token: int
    ) -> None:
        self._library = library
        self._model = model
        self._context = context
        self._memory = library.llama_get_memory(context)
        self._tokens: list[int] = []
        self.context = tokens
        self.chunk = min(CHUNK, tokens)
        self.vocab_size = int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(model)))
        self.weights_bytes = int(library.llama_model_size(model))
        self.kv_bytes_per_token = kv_bytes_per_token

    @classmethod
    def load(
        cls,
        path: Path,
        context: int,
        threads: int,
        progress: LoadProgress = lambda done, total: None,
        cancelled: CancelFlag | None = None,
        kv_bytes_per_token: int = 0,
    ) -> LlamaCppRuntime:
        """Load the model at `path` (its first part) with room for `context` tokens.

        `kv_bytes_per_token` is for show, llama.cpp does not tell it. A raised `cancelled` makes `forward` give up. Raises `ModelFileError`, `UnsupportedModelError`
        and `MemoryShortError`.
        """
        library = _library()
        capture_log(library, shown=True)
        model = _load_model(library, path, progress)
        try:
            handle = _open_context(library, model, context, threads, cancelled)
        except BaseException:
            library.llama_model_free(model)
            raise
        return cls(library, model, handle, context, kv_bytes_per_token)

    logits: Floats | None = None

    def behind(self, tokens: Sequence[int]) -> list[list[int]]:
        """What the sequence holds behind these tokens, if it begins with them."""
        wanted = list(tokens)
        return [self._tokens[len(wanted) :]] if self._tokens[: len(wanted)] == wanted else []

    def begin(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> int:
        """Keep the longest common prefix with the sequence before, at most len(tokens) - 1."""
        self._cut(self.cached(tokens))
        return len(self._tokens)

    def cached(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` the sequence begins with; the last one is wanted in any case."""
        return common_prefix(self._tokens, tokens[:-1])

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Append tokens; logits of the last, (vocab_size,), valid until the next call.

        Raises `CancelledError`, and `EngineError` when llama.cpp fails; the tokens then are not appended.
        """
        assert 0 < len(tokens) <= self.chunk
        assert len(self._tokens) + len(tokens) <= self.context
        array = (self._library.llama_token * len(tokens))(*tokens)
        batch = self._library.llama_batch_get_one(array, len(tokens))
        clear_errors()
        code = self._library.llama_decode(self._context, batch)
        if code != 0:
            self._cut(len(self._tokens))
            if code == _ABORTED:
                raise CancelledError
            raise EngineError("llama.cpp failed", _complaint(f"llama_decode returned {code}"))
        self._tokens += tokens
        logits = self._library.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (self.vocab_size,))

    def close(self) -> None:
        """Free context and model. Closing twice is harmless."""
        if self._context is not None:
            self._library.llama_free(self._context)
            self._library.llama_model_free(self._model)
            self._context = self._model = None

    def _cut(self, length: int) -> None:
        """Keep the first `length` tokens; a recurrent state cannot be cut and is forgotten."""
        if length == 0 or not self._library.llama_memory_seq_rm(self._memory, 0, length, -1):
            self._library.llama_memory_clear(self._memory, True)
            length = 0
        del self._tokens[length:]


def _load_model(library: Any, path: Path, progress: LoadProgress) -> Any:
    total = path.stat().st_size

    @library.llama_progress_callback  # type: ignore[untyped-decorator]
    def report(share: float, data: object) -> bool:
        progress(int(share * total), total)
        return True

    params = library.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = may_rearrange(path)
    params.progress_callback = report
    clear_errors()
    model = library.llama_model_load_from_file(bytes(path), params)
    if not model:
        raise ModelFileError(
            f"llama.cpp cannot load {path.name}",
            _complaint("It does not say why"),
            "Use another version of the model",
        )
    for refuses, why in (
        (not library.llama_model_has_decoder(model), "It has no decoder"),
        (library.llama_model_has_encoder(model), "It translates; it does not converse"),
        (library.llama_model_is_diffusion(model), "It is a diffusion model"),
    ):
        if refuses:
            library.llama_model_free(model)
            raise UnsupportedModelError(f"{path.name} cannot chat", why, "Choose another model")
    return model


def _open_context(
    library: Any, model: Any, tokens: int, threads: int, cancelled: CancelFlag | None
) -> Any:
    params = library.llama_context_default_params()
    params.n_ctx = tokens
    params.n_batch = params.n_ubatch = min(CHUNK, tokens)
    params.n_seq_max = 1
    params.n_outputs_max = 1
    params.n_threads = params.n_threads_batch = threads
    params.no_perf = True
    if cancelled is not None:
        params.abort_callback = _abort_callback(library)
        params.abort_callback_data = cancelled.address
    context = library.llama_init_from_model(model, params)
    if not context:
        raise MemoryShortError(
            f"llama.cpp cannot make room for {tokens} tokens",
            _complaint("It does not say why"),
            "Use a smaller context",
        )
    return context


def _complaint(otherwise: str) -> str:
    """The first of llama.cpp's last errors, which names the cause; later ones only pass it on."""
    errors = logged_errors()
    first = errors[0] if errors else otherwise
    return first.removeprefix("llama_model_load: error loading model: ")[:240]
