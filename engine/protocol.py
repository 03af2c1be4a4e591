"""What a client and the engine's child process say to each other: commands and events.

How they are framed is `engine.wire`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engine.errors import KtchatError, RequestError

Role = Literal["system", "user", "assistant"]
Reason = Literal["stop", "length", "context", "cancelled"]
Stage = Literal["load", "prefill"]
RuntimeName = Literal["native", "llama.cpp"]
Auto = Literal["auto"]
Computed = Literal["CPU", "GPU", "hybrid"]
Device = Literal["auto", "cpu", "gpu"]
KvKind = Literal["f16", "q8"]
"""How GPUs keep the KV cache: float16, or 8 bits with a scale for every 32 features."""
Think = Literal["off", "on", "low", "medium", "high", "max"]
"""Whether and how much a model thinks; which of them there are is found in its template."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, in the words of its author."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `seed` None draws one."""

    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        check_sampling(self)


@dataclass(frozen=True, slots=True)
class PartialSampling:
    """Some of the values of a `Sampling`, as a person, a model's file or the settings give them."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_sampling(self)


SAMPLING_LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 10.0),
    "top_k": (0, 1 << 20),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (0.1, 10.0),
    "seed": (0, 0xFFFFFFFF),
}
"""Least and greatest value of each."""


def check_sampling(sampling: Sampling | PartialSampling) -> None:
    """Raise `RequestError` for a value that is not possible."""
    for name, (low, high) in SAMPLING_LIMITS.items():
        value = getattr(sampling, name)
        if value is not None and not low <= value <= high:
            raise RequestError(
                f"{name} {value} is not possible", "", f"Use a value from {low:g} to {high:g}"
            )


# Commands: client -> child.


@dataclass(frozen=True, slots=True)
class Load:
    """Load the model at `path`. `context` None lets the engine choose, "auto" takes the longest that
    fits; `runtime` None lets it choose too. `device` "auto" takes a GPU where there is one to use."""

    path: str
    context: int | Auto | None = None
    threads: int | None = None
    runtime: RuntimeName | None = None
    device: Device = "auto"
    kv: KvKind = "f16"
    cache_folder: str = ""
    """Where the KV cache goes between replies, to be found again; empty: nowhere."""
    cache_budget: int | None = None
    """Bytes that it may take there; None: 10 GB, or a tenth of the free disk where that is less."""
    lookup: bool = True
    """Whether tokens are drafted by prompt lookup where that is faster; replies are the same."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Answer a conversation. `id` is echoed by `Cancel`. `think` None: as the template has it.

    `session` names whose the KV cache on the disk is; None: nothing of this one goes there.
    """

    id: int
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    think: Think | None = None
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop request `id`; it ends with `Finished("cancelled")`. Unknown ids are ignored."""

    id: int


@dataclass(frozen=True, slots=True)
class AnswerNow:
    """End the thinking of request `id`: the model goes on with its reply. Else ignored."""

    id: int


@dataclass(frozen=True, slots=True)
class Close:
    """Free everything and exit, once what is to go to the disk is there, but within so many `seconds`."""

    seconds: float = 0.0


Command = Load | Generate | Cancel | AnswerNow | Close

# Events: child -> client.


@dataclass(frozen=True, slots=True)
class Progress:
    """Work done so far: bytes while loading, tokens while prefilling."""

    stage: Stage
    done: int
    total: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the person should know, that stops nothing (another runtime, a built-in template)."""

    text: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model that now answers. `context` is in tokens, `weights_bytes` in bytes."""

    path: str
    name: str
    architecture: str
    quantisation: str
    runtime: str
    context: int
    weights_bytes: int
    kv_bytes_per_token: int
    seconds: float
    device: Computed = "CPU"
    """What computes: measured speeds are kept by it."""
    think: tuple[Think, ...] = ()
    """What its template offers of thinking; empty: there is nothing to choose."""
    think_default: Think | None = None
    """Which of them holds where none is chosen; None: something else."""
    sampling: PartialSampling = field(default_factory=PartialSampling)
    """What its file says of sampling (`general.sampling.*`)."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt is in the KV cache: `tokens` in all, of which `cached` were not read; of these `restored`
    came from the disk."""

    tokens: int
    cached: int
    seconds: float
    restored: int = 0


@dataclass(frozen=True, slots=True)
class Thinking:
    """Text of the model's reasoning; `tokens` were sampled for it."""

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Text:
    """Text of the reply; `tokens` were sampled for it."""

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class WasThinking:
    """All `Text` of the reply so far was reasoning: its end came without a beginning, or what proves to
    be the reply came after it."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One turn in numbers. Seconds of wall time; `reply_tokens` include thinking, `cached_tokens` those that
    were restored from the disk."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    thinking_tokens: int = 0
    prefill_seconds: float = 0.0
    first_token_seconds: float = 0.0
    decode_seconds: float = 0.0
    context_used: int = 0
    context_size: int = 0
    seed: int = 0
    restored_tokens: int = 0
    restore_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    """Of those drafted by prompt lookup."""
    saved_seconds: float = 0.0
    """What they gained, by what a token alone takes; below 0: lost."""

    @property
    def decode_tok_s(self) -> float:
        """Tokens a second after the first, 0 when there was no second one."""
        if self.reply_tokens < 2 or self.decode_seconds <= 0:
            return 0.0
        return (self.reply_tokens - 1) / self.decode_seconds

    @property
    def one_by_one_tok_s(self) -> float:
        """`decode_tok_s` without what prompt lookup gave, which is the text's and not the machine's."""
        return self.decode_tok_s / (1.0 + self.lookup_gain)

    @property
    def lookup_gain(self) -> float:
        """By what share prompt lookup made the reply faster: 0.18 is 18 %; below 0: slower."""
        if self.decode_seconds <= 0:
            return 0.0
        return max(self.saved_seconds / self.decode_seconds, -0.5)

    @property
    def prefill_tok_s(self) -> float:
        """Prompt tokens a second, cached ones left out."""
        fresh = self.prompt_tokens - self.cached_tokens
        return fresh / self.prefill_seconds if self.prefill_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """The reply is complete; the last event of a request that did not fail."""

    reason: Reason
    figures: Figures


@dataclass(frozen=True, slots=True)
class Failed:
    """The command failed; the last event of its request."""

    error: KtchatError


Event = Progress | Notice | Loaded | Prefilled | Thinking | Text | WasThinking | Finished | Failed

Last = Loaded | Finished | Failed
"""What ends a command's events."""


def coalesced(last: Event, event: Event) -> Event | None:
    """One event that says what both say; None where they cannot be one."""
    match last, event:
        case Text(), Text():
            return Text(last.text + event.text, last.tokens + event.tokens)
        case Thinking(), Thinking():
            return Thinking(last.text + event.text, last.tokens + event.tokens)
        case Progress(), Progress() if last.stage == event.stage:
            return event
    return None
