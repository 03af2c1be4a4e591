"""What the decoder needs of a model, as protocols: a runtime (tokens in, logits out), a tokenizer, a template."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from kernels.cancelling import CancelledError

if TYPE_CHECKING:
    from engine.plan.token_reads import TokenReads
    from engine.protocol import Computed, Loaded, Message, Think
    from engine.runtimes.expert_use import ExpertUse
    from engine.text.tokenizer import Part

__all__ = ["CancelFlag", "CancelledError", "Runtime"]

Floats = npt.NDArray[np.float32]

LoadProgress = Callable[[int, int], None]
"""Called while weights are loaded with (bytes done, bytes in all)."""


class CancelFlag:
    """Raised by one thread to make another give up its work; native code can read it too.

    The flag is a C string: empty while lowered. `address` is its place in memory.
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)
        self.address = ctypes.addressof(self._text)

    def set(self) -> None:
        """Raise the flag."""
        self._text[0] = b"x"

    def clear(self) -> None:
        """Lower the flag."""
        self._text[0] = b"\0"

    def __bool__(self) -> bool:
        return self._text[0] != b"\0"


class Runtime(Protocol):
    """A loaded model that holds one sequence of tokens. One thread owns it."""

    name: str
    """As the person reads it: "native", "llama.cpp"."""
    device: Computed
    """What computes: "CPU", "GPU" or both, "hybrid"."""
    context: int
    """Tokens the sequence can hold."""
    chunk: int
    """Most tokens of one `forward`."""
    vocab_size: int
    weights_bytes: int
    kv_bytes_per_token: int
    expert_use: ExpertUse | None
    """Counts which experts are used while a reply is written; None: there are none, or that is not told."""

    def begin(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> int:
        """Start a sequence for this prompt; keep the longest cached prefix of it.

        `marks` are positions to which a later prompt is likely to go back: the ends of messages. Returns how
        many tokens are kept: at most len(tokens) - 1, or all of them where `logits` has those behind the last.
        """
        ...

    def behind(self, tokens: Sequence[int]) -> list[list[int]]:
        """What cached sequences that begin with these tokens hold behind them, the last used first."""
        ...

    def cached(self, tokens: Sequence[int]) -> int:
        """How many of a prompt's tokens `begin` would keep. Changes nothing."""
        ...

    @property
    def logits(self) -> Floats | None:
        """The logits behind the last token of the sequence, where they were kept from an earlier turn."""
        ...

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Append 1 .. `chunk` tokens to the sequence.

        Returns the logits of the last one, float32 (vocab_size,); the next call may reuse the array.
        Raises `CancelledError` where the runtime watches a `CancelFlag`; the sequence then is as before.
        """
        ...

    def close(self) -> None:
        """Free everything. The runtime cannot be used again."""
        ...


class Pieces(Protocol):
    """Turns the tokens of one reply into text, never splitting a character."""

    def feed(self, token: int) -> str:
        """Text that `token` completes; empty while a character is incomplete."""
        ...

    def flush(self) -> str:
        """What is left at the end."""
        ...


class Vocabulary(Protocol):
    """Text to tokens and back (`engine.text.tokenizer.Tokenizer`)."""

    @property
    def vocab_size(self) -> int:
        """Tokens there are."""
        ...

    @property
    def marks(self) -> frozenset[str]:
        """Texts of the tokens that can be marks around reasoning."""
        ...

    def mark(self, token: int) -> str:
        """The text of a token that can be such a mark; empty for every other one."""
        ...

    def encode(self, parts: Sequence[Part]) -> list[int]:
        """Tokens of a rendered prompt."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a message's text, within a prompt."""
        ...

    def encode_more(self, parts: Sequence[Part]) -> list[int]:
        """Tokens of what goes on behind other tokens."""
        ...

    def decoder(self) -> Pieces:
        """A fresh incremental decoder."""
        ...

    def is_end(self, token: int) -> bool:
        """Whether the model ends its turn with this token."""
        ...

    def close(self) -> None:
        """Free the vocabulary."""
        ...


class Template(Protocol):
    """A conversation as a prompt (`engine.text.template.ChatTemplate`)."""

    @property
    def notice(self) -> str | None:
        """What the person should know of the template."""
        ...

    def render(
        self, messages: Sequence[Message], think: Think | None = None, *, quietly: bool = False
    ) -> list[Part]:
        """The prompt, ready for the model's answer; `quietly`: `notice` stays as it is. Raises `TemplateError`, and `RequestError` for
        a `think` that it does not offer."""
        ...

    def close(self) -> None:
        """End the template's process."""
        ...


class OnDisk(Protocol):
    """The KV cache's way to the disk and back (`engine.runtimes.on_disk`). The runtime's thread calls it."""

    def restore(self, tokens: Sequence[int], report: Callable[[int], bool]) -> int:
        """Lengthen the sequence that was begun for the prompt `tokens` by what is there; by how many.

        `report` is called with the tokens of the sequence, and says whether more are wanted.
        """
        ...

    def save(self, session: str) -> None:
        """The current sequence, of this session, is due to be written."""
        ...

    def listen(self, wake: Callable[[], None]) -> None:
        """`wake` is called, by another thread, when `advance` can do more."""
        ...

    def advance(self) -> bool:
        """Write a little of what is due, beside this thread; False: all is written."""
        ...

    def finish(self, seconds: float) -> bool:
        """Write what is due, for so long at most; whether all is written."""
        ...

    def stop(self) -> None:
        """Stop writing, soon. Any thread may call it."""
        ...

    def notice(self) -> str:
        """What the person should know, once; empty: nothing."""
        ...

    def close(self) -> None:
        """End its threads; what is due is given up."""
        ...


class Ahead(Protocol):
    """Forwards a reply's tokens, and drafts of them ahead (`engine.generation.speculation`)."""

    drafted: int
    """Tokens drafted in this reply, and how many of them proved right."""
    accepted: int

    @property
    def saved_seconds(self) -> float:
        """What drafts have gained in this reply, against tokens one by one."""
        ...

    def begin(self, prompt: Sequence[int]) -> None:
        """A reply to `prompt` begins."""
        ...

    def forward(self, token: int, most: int) -> Floats:
        """Logits after `token`, (vocab_size,), where the reply may have `most` more tokens."""
        ...

    def end(self) -> None:
        """The sequence is that of the tokens so far, nothing ahead."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that answers: what was loaded, its three parts, and what they stand on."""

    loaded: Loaded
    tokenizer: Vocabulary
    template: Template
    runtime: Runtime
    resources: ExitStack = field(default_factory=ExitStack)
    on_disk: OnDisk | None = None
    """None: nothing is kept there."""
    speculation: Ahead | None = None
    """None: tokens one by one."""
    reads: TokenReads | None = None
    """What tokens read; None: nobody is told how replies are computed."""

    def close(self) -> None:
        """Free everything."""
        self.resources.close()
