"""Text to tokens and back.

The template's text may hold control tokens; a person's and a model's may not, so that typing
`<|im_end|>` ends nothing. Between control tokens, neighbouring text is tokenised as one run, so that
harmless text becomes exactly what llama.cpp makes of the whole prompt.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.common.packages import require_llama_cpp
from engine.errors import ModelFileError, RequestError
from engine.gguf.file import GGUFFile
from engine.gguf.header import DOWNLOAD, shown
from engine.text.llama_vocab import llama_vocabulary
from engine.text.marks import ATOMS
from engine.text.own_vocab import own_vocabulary
from engine.text.run_memory import RunMemory
from engine.text.special_tokens import MAX_LENGTH, SpecialTokens
from engine.text.token_roles import (
    CONTROL,
    STRIP_LEFT,
    STRIP_RIGHT,
    TYPES,
    UNKNOWN,
    USER_DEFINED,
)
from engine.text.vocabulary import BPE, SPM, Vocabulary, checked_names

MAX_TEXT = 8 << 20
"""Characters in one prompt."""
MAX_RUN = 2048
_LONG = {
    BPE: re.compile(rf"\S{{{MAX_RUN}}}|\s{{{MAX_RUN}}}"),
    SPM: re.compile(rf"[\s\S]{{{2 * MAX_RUN}}}"),
}
"""What is too long for llama.cpp: its regular expressions (BPE) recurse once a character and overflow
the stack at some 20,000; its SentencePiece takes time with the square of unknown characters."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_BAR = re.compile(r"[|\uff5c]")
_BLANKS = " \t\n\v\f\r"
_ODD_TYPES = (2, 3, 4)
"""Token types of a GGUF: unknown, control, user-defined."""
_CANDIDATES = (b"<", b"[", b"_<", "▁<".encode())
"""How the tokens begin that llama.cpp makes control tokens by their text."""


@dataclass(frozen=True, slots=True)
class Part:
    """Text of a prompt. `special` text is the template's: control tokens are recognised in it."""

    text: str
    special: bool


class Decoder:
    """Tokens to text, a token at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that is complete now; an unfinished character waits. Control tokens are empty."""
        return self._utf8.decode(self._tokenizer.visible_piece(token))

    def flush(self) -> str:
        """What still waited: U+FFFD when a character stayed unfinished."""
        text = self._utf8.decode(b"", True)
        self._utf8.reset()
        return text


class Tokenizer:
    """A model's vocabulary."""

    def __init__(self, vocab: Vocabulary, odd: dict[int, str], template: str) -> None:
        """`odd` are the tokens that are not plain text, `template` the model's own."""
        self._vocab = vocab
        self._odd = odd
        self._attributes = {token: vocab.attributes(token) for token in odd}
        self._template = template
        markers = {odd[token]: token for token in odd if self._is_marker(token)}
        control = {odd[token]: token for token in odd if self._is_control(token)}
        self._specials = control | markers
        self._special = SpecialTokens(self._specials)
        self._markers = SpecialTokens(markers)
        self._marks = {token: text for token, text in odd.items() if text in ATOMS}
        self._pieces: dict[int, bytes] = {}
        self._line_break: list[int] | None = None
        self._tokens_of = RunMemory(self._encode_run)

    @classmethod
    def open(cls, path: Path, file: GGUFFile | None = None) -> Tokenizer:
        """The vocabulary of the model at `path`; `file` is that model when it is open already.

        Raises `ModelFileError` when there is none or it cannot be used.
        """
        if file is None:
            with GGUFFile.open(path) as opened:
                return cls.open(path, opened)
        names = checked_names(file)
        types = file.array(TYPES)
        odd = {token for token, name in enumerate(names) if name.startswith(_CANDIDATES)}
        if types is not None:
            odd.update(np.flatnonzero(np.isin(types.numpy()[: len(names)], _ODD_TYPES)).tolist())
        texts = {token: names[token].decode("utf-8", "replace") for token in sorted(odd)}
        longest = max(map(len, texts.values()), default=0)
        if longest > MAX_LENGTH:
            raise ModelFileError(
                f"{shown(file.path.name)} is damaged",
                f"Its vocabulary has a control token of {longest} characters",
                DOWNLOAD,
            )
        vocab: Vocabulary | None = own_vocabulary(file, names)
        if vocab is None:
            require_llama_cpp("This model's vocabulary")
            vocab = llama_vocabulary(file)
        if vocab.size != len(names):
            vocab.close()
            raise ModelFileError(
                f"{shown(file.path.name)} is damaged",
                f"Its vocabulary has {vocab.size} tokens, not {len(names)}",
                DOWNLOAD,
            )
        return cls(vocab, texts, str(file.metadata.get("tokenizer.chat_template", "")))

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self._vocab.size

    @property
    def bos(self) -> int | None:
        """The token that begins a sequence."""
        return self._vocab.bos if self._vocab.bos >= 0 else None

    @property
    def eos(self) -> int | None:
        """The token that ends a sequence; `is_end` knows all that do."""
        return self._vocab.eos if self._vocab.eos >= 0 else None

    @property
    def adds_bos(self) -> bool:
        """Whether every prompt begins with `bos`."""
        return self._vocab.adds_bos and self.bos is not None

    def is_end(self, token: int) -> bool:
        """Whether generation ends with this token."""
        return self._vocab.is_end(self._checked(token))

    def piece(self, token: int) -> bytes:
        """The bytes of a token, of a control token too."""
        return self._vocab.piece(self._checked(token), special=True)

    def decoder(self) -> Decoder:
        """A fresh decoder."""
        return Decoder(self)

    @property
    def marks(self) -> frozenset[str]:
        """The tokens that can be marks around reasoning (`engine.text.marks.ATOMS`)."""
        return frozenset(self._marks.values())

    def mark(self, token: int) -> str:
        """The text of a token that can be a mark; empty for every other one."""
        return self._marks.get(token, "")

    def visible_piece(self, token: int) -> bytes:
        """The bytes that a reader sees: none for control tokens."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._vocab.piece(self._checked(token), special=False)
        return known

    def encode(self, parts: Sequence[Part]) -> list[int]:
        """Tokens of a prompt. Raises `RequestError` when it has more than `MAX_TEXT` characters."""
        tokens = self._encode(parts, begins=True)
        if self.adds_bos and self.bos is not None and tokens[:1] != [self.bos]:
            tokens.insert(0, self.bos)
        return tokens

    def encode_more(self, parts: Sequence[Part]) -> list[int]:
        """Tokens of what goes on behind other tokens."""
        return self._encode(parts, begins=False)

    def count(self, text: str) -> int:
        """How many tokens a message's text is, within a prompt."""
        return len(self._encode([Part(text.strip(), False)], begins=False))

    def close(self) -> None:
        """Free the vocabulary; nothing may be asked of it afterwards."""
        self._vocab.close()

    def _encode(self, parts: Sequence[Part], begins: bool) -> list[int]:
        length = sum(len(part.text) for part in parts)
        if length > MAX_TEXT:
            raise RequestError(
                f"The text has {length} characters", f"{MAX_TEXT} are possible", "Shorten it"
            )
        tokens: list[int] = []
        run: list[str] = []
        before = ""
        for text, token in self._cut(parts):
            run.append(text)
            if token is None:
                continue
            attributes = self._attributes[token]
            tokens += self._tokens_of(
                "".join(run).lstrip(before).rstrip(_BLANKS if attributes & STRIP_LEFT else ""),
                begins or bool(tokens),
            )
            tokens.append(token)
            run.clear()
            before = _BLANKS if attributes & STRIP_RIGHT else ""
        tokens += self._tokens_of("".join(run).lstrip(before), begins or bool(tokens))
        return tokens

    def _cut(self, parts: Sequence[Part]) -> Iterator[tuple[str, int | None]]:
        """Text, and the control token behind it when there is one."""
        for part in parts:
            position = 0
            if part.special:
                for start, token in self._special.find(part.text):
                    yield part.text[position:start], self._specials[token]
                    position = start + len(token)
            yield part.text[position:], None

    def _encode_run(self, text: str, begins: bool) -> list[int]:
        """Tokens of text without control tokens; whether it `begins` or goes on behind other text."""
        tokens: list[int] = []
        long = _LONG.get(self._vocab.kind)
        for piece in self._unmarked(_SURROGATE.sub("\ufffd", text)):
            for chunk in _chunks(piece, long) if long else (piece,):
                if chunk and (tokens or not begins) and self._vocab.kind == SPM:
                    tokens += self._encode_rest(chunk)
                elif chunk:
                    tokens += self._vocab.tokenise(chunk.encode())
        return tokens

    def _encode_rest(self, text: str) -> list[int]:
        """Tokens of text that goes on; by itself SentencePiece would put a blank in front of it."""
        if self._line_break is None:
            self._line_break = self._vocab.tokenise(b"\n")
        tokens = self._vocab.tokenise(b"\n" + text.encode())
        size = len(self._line_break)
        if tokens[:size] == self._line_break:
            return tokens[size:]
        return self._vocab.tokenise(text.encode())

    def _unmarked(self, text: str) -> Iterator[str]:
        """The text, cut inside everything that llama.cpp would still take for a turn's marker."""
        start = 0
        while (found := next(self._markers.find(text, start), None)) is not None:
            yield text[start : found[0] + 1]
            start = found[0] + 1
        yield text[start:]

    def _is_control(self, token: int) -> bool:
        return bool(self._attributes[token] & (CONTROL | UNKNOWN) and self._odd[token])

    def _is_marker(self, token: int) -> bool:
        """Whether this is a user-defined token that a template builds turns with.

        llama.cpp recognises such tokens in any text (DeepSeek's `<｜User｜>` is one).
        """
        text = self._odd[token]
        if not self._attributes[token] & USER_DEFINED or len(text.strip()) < 3:
            return False
        return _BAR.search(text) is not None or text in self._template

    def _checked(self, token: int) -> int:
        if not 0 <= token < self._vocab.size:
            raise RequestError(
                f"Token {token} is not in the vocabulary", f"It has {self._vocab.size} tokens"
            )
        return token


def _chunks(text: str, long: re.Pattern[str]) -> Iterator[str]:
    """The text, cut where it is too long: in front of a blank, or where words meet other signs."""
    start = 0
    while match := long.search(text, start):
        cut = end = match.end()
        for position in range(end - 1, end - (end - match.start()) // 4, -1):
            before, after = text[position - 1], text[position]
            if after == " " != before:
                cut = position
                break
            if cut == end and before.isalnum() != after.isalnum() and after != "\n":
                cut = position
        yield text[start:cut]
        start = cut
    yield text[start:]
