"""A scripted model: the decoder's three parts without weights.

Characters are tokens (their code points, below `VOCAB`); 0 ends a turn. What it says and how fast is in
the last message, as `key=value` words: say=TEXT (with \\s for a space), count=N (repetitions; 0: for
ever), then=TEXT (what it says behind tokens that it did not choose), delay=SECONDS (a token),
prefill=SECONDS (a chunk), fail=PHASE.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.errors import EngineError
from engine.generation.draft_control import SIZES, DraftControl
from engine.generation.speculation import Speculation, Verifier
from engine.protocol import Computed, Loaded, Message, Think
from engine.runtimes.base import Floats, Model

VOCAB = 0x3000
END = 0
FIRST_MARK = 0x2F00


@dataclass(frozen=True)
class Part:
    """As `engine.text.tokenizer.Part`, without llama.cpp."""

    text: str
    special: bool


class FakeTokenizer:
    """One character, one token; each of `marks` is one too."""

    vocab_size = VOCAB

    def __init__(self, marks: Sequence[str] = ()) -> None:
        self._marks = dict(zip(range(FIRST_MARK, VOCAB), marks, strict=False))
        self.marks = frozenset(marks)

    def mark(self, token: int) -> str:
        return self._marks.get(token, "")

    def encode_more(self, parts: Sequence[Part]) -> list[int]:
        tokens: list[int] = []
        for part in parts:
            text = part.text
            for token, mark in self._marks.items() if part.special else ():
                text = text.replace(mark, chr(token))
            tokens += [ord(char) for char in text]
        return tokens

    def count(self, text: str) -> int:
        return len(text)

    def encode(self, parts: Sequence[Part]) -> list[int]:
        return [ord(char) for part in parts for char in part.text]

    def decoder(self) -> FakePieces:
        return FakePieces()

    def is_end(self, token: int) -> bool:
        return token == END

    def close(self) -> None:
        pass


class FakePieces:
    """Holds back a combining accent's base, as a decoder holds back half a character."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, token: int) -> str:
        if chr(token) == "\u20ac":
            self._held += chr(token)
            return ""
        text, self._held = self._held + chr(token), ""
        return text

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


class FakeTemplate:
    """The messages' contents, one a line."""

    notice: str | None = None

    def __init__(self, tail: str = "") -> None:
        self._tail = tail
        self.asked: list[Think | None] = []

    def render(
        self, messages: Sequence[Message], think: Think | None = None, *, quietly: bool = False
    ) -> list[Part]:
        self.asked.append(think)
        parts = [Part(message.content + "\n", False) for message in messages]
        return [*parts, Part(self._tail, True)]

    def close(self) -> None:
        pass


@dataclass
class FakeRuntime:
    """Says what the prompt tells it to say."""

    context: int = 4096
    device: Computed = "CPU"
    chunk: int = 64
    name: str = "fake"
    vocab_size: int = VOCAB
    weights_bytes: int = 0
    kv_bytes_per_token: int = 0
    expert_use: None = None
    closed: bool = False
    sequence: list[int] = field(default_factory=list)
    forwarded: list[int] = field(default_factory=list)
    """Lengths of the calls."""
    _prompt: int = 0
    _script: dict[str, str] = field(default_factory=dict)
    _chosen: int | None = None
    _forced: int = 0  # length of the sequence behind the last token that it did not choose
    _before: list[tuple[int | None, int]] = field(default_factory=list)
    """`_chosen` and `_forced` before each token of the last `forward_all`."""

    logits: Floats | None = None

    def begin(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> int:
        shared = self.cached(tokens)
        del self.sequence[shared:]
        self.forwarded.clear()
        self._prompt = len(tokens)
        self._chosen, self._forced = None, 0
        words = "".join(map(chr, tokens)).rstrip("\n").rpartition("\n")[2].split()
        self._script = dict(word.split("=", 1) for word in words if "=" in word)
        return shared

    def behind(self, tokens: Sequence[int]) -> list[list[int]]:
        wanted = list(tokens)
        return [self.sequence[len(wanted) :]] if self.sequence[: len(wanted)] == wanted else []

    def cached(self, tokens: Sequence[int]) -> int:
        shared = 0
        for old, new in zip(self.sequence, tokens[:-1], strict=False):
            if old != new:
                break
            shared += 1
        return shared

    def forward(self, tokens: Sequence[int]) -> Floats:
        assert 0 < len(tokens) <= self.chunk
        assert len(self.sequence) + len(tokens) <= self.context
        self.sequence += tokens
        if self._chosen not in (None, tokens[0]):
            self._forced = len(self.sequence)
        self.forwarded.append(len(tokens))
        prefilling = len(self.sequence) <= self._prompt
        time.sleep(float(self._script.get("prefill" if prefilling else "delay", 0)))
        if self._script.get("fail") == ("prefill" if prefilling else "decode"):
            raise EngineError("The fake failed")
        logits = np.full(VOCAB, -1e9, np.float32)
        following = self._following()
        self._chosen = None if prefilling and len(self.sequence) < self._prompt else following
        logits[following] = 1.0
        return logits

    def forward_all(self, tokens: Sequence[int]) -> Floats:
        self._before, rows = [], []
        for token in tokens:
            self._before.append((self._chosen, self._forced))
            rows.append(self.forward([token]))
        self.forwarded[-len(tokens) :] = [len(tokens)]
        return np.stack(rows)

    def alike(self, position: int) -> int:
        return self.chunk

    def cut_back(self, count: int) -> None:
        assert 0 < count < len(self._before)
        del self.sequence[-count:]
        self._chosen, self._forced = self._before[-count]
        self._before = []

    def _following(self) -> int:
        said, start = ("then", self._forced) if self._forced else ("say", self._prompt)
        text = self._script.get(said, "ok").replace("\\s", " ").replace("\\n", "\n")
        count = 1 if self._forced else int(self._script.get("count", 1))
        place = len(self.sequence) - start
        return END if count and place >= count * len(text) else ord(text[place % len(text)])

    def close(self) -> None:
        self.closed = True


def fake_model(
    context: int = 4096,
    chunk: int = 64,
    tail: str = "",
    marks: Sequence[str] = (),
    lookup: bool = False,
) -> Model:
    """A scripted model, loaded; `lookup`: it drafts whenever it can."""
    runtime = FakeRuntime(context=context, chunk=chunk)
    loaded = Loaded("fake", "fake", "fake", "F32", "fake", context, 0, 0, 0.0)
    tokenizer = FakeTokenizer(marks)
    ahead = eager(runtime, tokenizer.is_end) if lookup else None
    return Model(loaded, tokenizer, FakeTemplate(tail), runtime, speculation=ahead)


class Eager(DraftControl):
    """Drafts as much as it can, whatever that costs."""

    awake = True

    def size(self, match: int, most: int) -> int:
        return max((n for n in SIZES if n <= most), default=1)


def eager(runtime: Verifier, is_end: Callable[[int], bool]) -> Speculation:
    """Speculation without a clock that drafts at every token."""
    ahead = Speculation(runtime, is_end, clock=itertools.count().__next__)
    ahead.control = Eager()
    ahead.control.single(1.0)
    return ahead
