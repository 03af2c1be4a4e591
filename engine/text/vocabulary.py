"""What a tokenizer needs of a model's vocabulary, and what is checked before anybody opens it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from engine.common.units import count
from engine.errors import ModelFileError
from engine.gguf.file import GGUFFile
from engine.gguf.header import DOWNLOAD, shown
from engine.text.token_roles import TYPES

SPM, BPE = 1, 2
"""Kinds of vocabularies: SentencePiece, byte pairs."""

TOKENS = "tokenizer.ggml.tokens"
MAX_TOKENS = 1 << 20
"""Tokens in a vocabulary; the largest known has 262,144."""

_BYTE_TOKENS = frozenset(b"<0x%02X>" % byte for byte in range(256))
_NOT_FOR_CHAT = ("", "none", "no_vocab", "bert", "test")
"""Kinds of vocabularies (tokenizer.ggml.model) that no model writes text with."""
_BYTE = 6
"""Token type of a GGUF: a single byte."""


class Vocabulary(Protocol):
    """An open vocabulary. Token ids must be within it: 0 <= id < size; -1: there is no such token."""

    kind: int
    size: int
    bos: int
    eos: int
    adds_bos: bool

    def attributes(self, token: int) -> int:
        """llama_token_attr (`engine.text.token_roles`)."""

    def is_end(self, token: int) -> bool:
        """Whether generation ends here."""

    def tokenise(self, text: bytes) -> list[int]:
        """Token ids of UTF-8, without a token for its beginning; a control token's text is text."""

    def piece(self, token: int, special: bool) -> bytes:
        """The bytes a token stands for; of a control token only when `special`."""

    def close(self) -> None:
        """Free the vocabulary; nothing may be asked of it afterwards."""


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
