"""llama.cpp's vocabulary through ctypes: the few functions of libllama that tokenising needs.

The package llama_cpp is not imported, which would cost a tenth of a second. The layout of
`llama_model_params` is that of llama-cpp-python 0.3.36, which is pinned; its defaults are checked.
"""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from pathlib import Path

import numpy as np

from engine.common.llama_log import capture_log, logged_errors
from engine.common.units import count
from engine.errors import ModelFileError
from engine.gguf.file import GGUFFile
from engine.gguf.header import DOWNLOAD, shown
from kernels import ggml
from kernels.quants import IK_TYPES

UNKNOWN, CONTROL, USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
STRIP_LEFT, STRIP_RIGHT = 1 << 7, 1 << 8
SPM, BPE = 1, 2
"""Kinds of vocabularies: SentencePiece, byte pairs."""

TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
MAX_TOKENS = 1 << 20
"""Tokens in a vocabulary; the largest known has 262,144."""

_BYTE_TOKENS = frozenset(b"<0x%02X>" % byte for byte in range(256))
_NOT_FOR_CHAT = ("", "none", "no_vocab", "bert", "test")
"""Kinds of vocabularies (tokenizer.ggml.model) that no model writes text with."""
_BYTE = 6
"""Token type of a GGUF: a single byte."""
_REASON = re.compile(r".*error[^:]*: (.+)")


class _ModelParams(ctypes.Structure):
    """`struct llama_model_params` of llama.h."""

    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("tensor_buft_overrides", ctypes.c_void_p),
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int),
        ("load_mode", ctypes.c_int),
        ("lazy_mode", ctypes.c_int),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", ctypes.c_void_p),
        ("progress_callback", ctypes.c_void_p),
        ("progress_callback_user_data", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("vocab_only", ctypes.c_bool),
        ("check_tensors", ctypes.c_bool),
        ("use_extra_bufts", ctypes.c_bool),
        ("no_host", ctypes.c_bool),
        ("no_alloc", ctypes.c_bool),
        ("load_mtp", ctypes.c_bool),
    )


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(ggml.library_dir() / "libllama.so"))
    pointer, i32, flag = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool
    signatures = {
        "llama_log_set": (None, [pointer, pointer]),
        "llama_model_default_params": (_ModelParams, []),
        "llama_model_load_from_file": (pointer, [ctypes.c_char_p, _ModelParams]),
        "llama_model_free": (None, [pointer]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_vocab_type": (ctypes.c_int, [pointer]),
        "llama_vocab_n_tokens": (i32, [pointer]),
        "llama_vocab_get_attr": (ctypes.c_int, [pointer, i32]),
        "llama_vocab_is_eog": (flag, [pointer, i32]),
        "llama_vocab_bos": (i32, [pointer]),
        "llama_vocab_eos": (i32, [pointer]),
        "llama_vocab_get_add_bos": (flag, [pointer]),
        "llama_tokenize": (i32, [pointer, ctypes.c_char_p, i32, pointer, i32, flag, flag]),
        "llama_token_to_piece": (i32, [pointer, i32, ctypes.c_char_p, i32, i32, flag]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    defaults = library.llama_model_default_params()
    if defaults.vocab_only or not defaults.use_extra_bufts or defaults.no_alloc:
        raise RuntimeError("libllama has another llama_model_params than llama-cpp-python 0.3.36")
    return library


class LlamaVocab:
    """An open vocabulary. Token ids must be within it: 0 <= id < size."""

    def __init__(self, path: Path, name: str = "") -> None:
        """`name` is what an error calls the file; of itself that of its path. Raises `ModelFileError`."""
        library = _library()
        capture_log(library)
        params = library.llama_model_default_params()
        params.vocab_only = True
        self._library = library
        self._model: int | None = library.llama_model_load_from_file(bytes(path), params)
        if not self._model:
            reasons = [match[1] for line in logged_errors() if (match := _REASON.match(line))]
            why = reasons[0] if reasons else "llama.cpp refuses it"
            raise ModelFileError(
                f"{shown(name or path.name)} has a vocabulary that cannot be used",
                shown(why[:1].upper() + why[1:], 200),
                "Use another version of the model",
            )
        self._vocab = library.llama_model_get_vocab(self._model)
        self.kind: int = library.llama_vocab_type(self._vocab)
        self.size: int = library.llama_vocab_n_tokens(self._vocab)
        self.bos: int = library.llama_vocab_bos(self._vocab)
        self.eos: int = library.llama_vocab_eos(self._vocab)
        self.adds_bos: bool = library.llama_vocab_get_add_bos(self._vocab)

    def attributes(self, token: int) -> int:
        """llama_token_attr."""
        return int(self._library.llama_vocab_get_attr(self._vocab, token))

    def is_end(self, token: int) -> bool:
        """Whether generation ends here."""
        return bool(self._library.llama_vocab_is_eog(self._vocab, token))

    def tokenise(self, text: bytes, parse_special: bool = False) -> list[int]:
        """Token ids of UTF-8, without a token for its beginning."""
        room = len(text) + 8
        while True:
            buffer = (ctypes.c_int32 * room)()
            count = self._library.llama_tokenize(
                self._vocab, text, len(text), buffer, room, False, parse_special
            )
            if count >= 0:
                return buffer[:count]
            room = -count

    def piece(self, token: int, special: bool) -> bytes:
        """The bytes a token stands for; of a control token only when `special`."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._library.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def close(self) -> None:
        """Free the vocabulary; nothing may be asked of it afterwards."""
        if self._model:
            self._library.llama_model_free(self._model)
            self._model = None


def checked_names(file: GGUFFile) -> list[bytes]:
    """The tokens' names as llama.cpp reads them. Raises `ModelFileError` for what it aborts on."""
    model = file.string("tokenizer.ggml.model", "")
    tokens = file.array(TOKENS)
    if model in _NOT_FOR_CHAT or tokens is None or not len(tokens):
        raise ModelFileError(
            f"{shown(file.path.name)} has no vocabulary", "", "Use another version of the model"
        )
    if len(tokens) > MAX_TOKENS:
        raise _damaged(file, f"Its vocabulary has {count(len(tokens))} tokens")
    wanted: tuple[tuple[str, tuple[str, ...]], ...] = (
        (TOKENS, ("string",)),
        (TYPES, ("i32",)),
        ("tokenizer.ggml.scores", ("f32", "i32")),
    )
    for key, elements in wanted:
        array = file.array(key)
        if array is not None and (array.element not in elements or len(array) < len(tokens)):
            raise _damaged(
                file, f"{key} does not hold a value for each of {count(len(tokens))} tokens"
            )
    names = [name.partition(b"\0")[0] if b"\0" in name else name for name in tokens.raw()]
    if len(set(names)) < len(names):
        names = [name or b"[EMPTY_%d]" % token for token, name in enumerate(names)]
        if len(set(names)) < len(names):
            raise _damaged(file, f"{TOKENS} holds a token twice")
    if model == "llama" and not set(names) >= _BYTE_TOKENS:
        raise _damaged(file, f"{TOKENS} has no token for some bytes")
    types = file.array(TYPES)
    odd = () if types is None else np.flatnonzero(types.numpy()[: len(names)] == _BYTE)
    if not all(names[token] in _BYTE_TOKENS for token in odd):
        raise _damaged(file, f"{TYPES} calls a token a byte that is none")
    return names


def _damaged(file: GGUFFile, why: str) -> ModelFileError:
    return ModelFileError(f"{shown(file.path.name)} is damaged", why, DOWNLOAD)


def open_vocabulary(file: GGUFFile) -> LlamaVocab:
    """llama.cpp reads no vocabulary beside tensors of types that it does not know: it gets one without them."""
    if not any(info.type.name in IK_TYPES for info in file.tensors.values()):
        return LlamaVocab(file.path)
    with os.fdopen(os.memfd_create("vocabulary"), "wb") as alone:
        alone.write(file.metadata_alone())
        alone.flush()
        return LlamaVocab(Path(f"/proc/self/fd/{alone.fileno()}"), file.path.name)
