"""A vocabulary without llama.cpp: `own_vocabulary` opens those of which it is certain that the results are the same.

Text is cut into words here (`engine.text.words`), and words become tokens in the native library
(`kernels/cpu/src/vocabulary.cpp`), which opens 152 thousand tokens in a tenth of what a tokenizer in Python objects takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.gguf.file import GGUFFile
from engine.text.special_tokens import MAX_LENGTH, SpecialTokens
from engine.text.token_roles import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Roles, roles_of
from engine.text.vocabulary import BPE, SPM
from engine.text.words import Words
from kernels.cpu import native

_CHARACTERS = 3
"""Byte pairs of characters, as the native library calls them beside `SPM` and `BPE`."""
_WHOLE_WORDS, _WHOLE_LINE_BREAKS = 1, 2
_BLANK = "\u2581"

_WHOLE = (
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    *("minicpm5", "glm4", "glm5", "tekken"),
)
"""Kinds of words in which a word that is a token needs no merges."""
_RAW = ("gemma4", "sarvam-moe")
"""Kinds that merge characters and not bytes, with a sign for blanks."""


class OwnVocab:
    """An open vocabulary. Token ids must be within it: 0 <= id < size."""

    def __init__(
        self,
        handle: int,
        names: Sequence[bytes],
        roles: Roles,
        words: Words | None,
        prefix: bool,
        raw: bool,
    ) -> None:
        """`words` None: SentencePiece, whose texts begin with a blank where `prefix` says so. `raw`: pieces are
        text with a sign for blanks, and not bytes in GPT-2's alphabet."""
        self.kind = SPM if words is None else BPE
        self.size = len(names)
        self.bos, self.eos, self.adds_bos = roles.bos, roles.eos, roles.adds_bos
        self._library = native.load()
        self._handle: int | None = handle
        self._names, self._roles, self._words = names, roles, words
        self._prefix, self._raw = prefix, raw
        self._defined = _defined(names, roles.attributes)
        self._find_defined = SpecialTokens(self._defined)

    def attributes(self, token: int) -> int:
        """llama_token_attr."""
        return int(self._roles.attributes[token])

    def is_end(self, token: int) -> bool:
        """Whether generation ends here."""
        return token in self._roles.ends

    def tokenise(self, text: bytes) -> list[int]:
        """Token ids of UTF-8, without a token for its beginning; a control token's text is text."""
        whole = text.decode("utf-8", "replace")
        tokens: list[int] = []
        start = 0
        for place, defined in self._find_defined.find(whole):
            tokens += self._plain(whole[start:place])
            tokens.append(self._defined[defined])
            start = place + len(defined)
        return tokens + self._plain(whole[start:])

    def _plain(self, text: str) -> list[int]:
        """Tokens of text in which no token stands by its own text."""
        if not text:
            return []
        if self._raw:
            text = (" " * self._prefix + text).replace(" ", _BLANK)
        data = text.encode()
        lengths = np.array([len(data)], np.int32) if self._words is None else self._words.cut(text)
        out = np.empty(len(data), np.int32)
        count = self._library.kt_vocabulary_encode(
            self._handle, data, lengths.ctypes.data, lengths.size, out.ctypes.data
        )
        if count < 0:
            raise MemoryError("no memory for a text's tokens")
        return [int(token) for token in out[:count].tolist()]

    def piece(self, token: int, special: bool) -> bytes:
        """The bytes a token stands for; of a control token only when `special`."""
        attributes = self.attributes(token)
        if not special and self._hidden(token):
            return b""
        name = self._names[token]
        if attributes & (UNKNOWN | CONTROL | USER_DEFINED):
            return name
        if attributes & NORMAL:
            return name.replace(_BLANK.encode(), b" ") if self._raw else _decoded(name)
        return bytes([int(name[3:5], 16)]) if attributes & BYTE else b""

    def close(self) -> None:
        """Free the vocabulary; nothing may be asked of it afterwards."""
        if self._handle:
            self._library.kt_vocabulary_close(self._handle)
            self._handle = None

    def _hidden(self, token: int) -> bool:
        return bool(self.attributes(token) & (CONTROL | UNKNOWN))


def own_vocabulary(file: GGUFFile, names: Sequence[bytes]) -> OwnVocab | None:
    """The vocabulary of a file whose checked names these are. None: llama.cpp has to open it."""
    model = str(file.metadata.get("tokenizer.ggml.model", ""))
    pre = "gemma4" if model == "gemma4" else str(file.metadata.get("tokenizer.ggml.pre", ""))
    words = None if model == "llama" else Words.of(pre)
    merges = file.array("tokenizer.ggml.merges")
    if model not in ("llama", "gpt2", "gemma4") or (
        model != "llama" and (words is None or merges is None)
    ):
        return None
    names = [name or b"[EMPTY_%d]" % token for token, name in enumerate(names)]
    roles = roles_of(file, names, model, pre)
    prefix = file.metadata.get("tokenizer.ggml.add_space_prefix", True)
    if roles is None or not isinstance(prefix, bool) or not _apart(names, roles.attributes):
        return None
    raw = model == "llama" or pre in _RAW
    kind = SPM if model == "llama" else _CHARACTERS if raw else BPE
    flags = _WHOLE_WORDS * (pre in _WHOLE) + _WHOLE_LINE_BREAKS * (pre == "gemma4")
    scores = _scores(file, len(names)) if kind == SPM else None
    texts, ends = _joined(names)
    merge_texts, merge_ends = _joined(
        list(merges.raw()) if merges is not None and kind != SPM else []
    )
    library = native.load()
    handle = library.kt_vocabulary_open(
        *(kind, flags, len(names), texts, ends.ctypes.data),
        None if scores is None else scores.ctypes.data,
        *(len(merge_ends), merge_texts, merge_ends.ctypes.data),
    )
    if not handle:
        return None
    return OwnVocab(handle, names, roles, words, prefix and kind == SPM, raw)


def _joined(texts: Sequence[bytes]) -> tuple[bytes, NDArray[np.int64]]:
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return b"".join(texts), np.cumsum(lengths)


def _scores(file: GGUFFile, count: int) -> NDArray[np.float32]:
    scores = file.array("tokenizer.ggml.scores")
    if scores is None:
        return np.zeros(count, np.float32)
    return np.ascontiguousarray(scores.numpy()[:count], np.float32)


def _defined(names: Sequence[bytes], attributes: NDArray[np.int32]) -> dict[str, int]:
    """The tokens that stand by their text in any text."""
    defined = (attributes & USER_DEFINED != 0) & (attributes & (CONTROL | UNKNOWN) == 0)
    found = np.flatnonzero(defined).tolist()
    return {names[token].decode("utf-8", "replace"): token for token in found}


def _apart(names: Sequence[bytes], attributes: NDArray[np.int32]) -> bool:
    """Whether tokens that stand by their text can never share a part of a text.

    llama.cpp looks for the longest in the whole text first, and among those as long in no certain order; where none
    overlaps another, that is the longest at each place. Runs of one character are cut the same way by both.
    """
    texts = _defined(names, attributes)
    if any("\ufffd" in text or not 0 < len(text) <= MAX_LENGTH for text in texts):
        return False
    distinct = [text for text in texts if len(set(text)) > 1]
    runs = {text[0] for text in texts if len(set(text)) == 1}
    begins = {text[:size] for text in distinct for size in range(1, len(text))}
    if any(text[size:] in begins for text in distinct for size in range(1, len(text))):
        return False
    return not any(text[0] in runs or text[-1] in runs for text in distinct)


def _decoded(name: bytes) -> bytes:
    """The bytes that a text in GPT-2's alphabet stands for, and llama.cpp's words for what is not in it."""
    out = b""
    for character in name.decode("utf-8", "replace"):
        byte = _BYTES.get(character)
        if byte is not None:
            out += bytes([byte])
        else:
            out += b"[UNK_BYTE_0x" + character.encode().hex().encode() + name + b"]"
    return out


def _alphabet() -> Iterator[tuple[str, int]]:
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    for byte in range(256):
        yield chr(byte if byte in printed else next(others)), byte


_BYTES: Mapping[str, int] = dict(_alphabet())
