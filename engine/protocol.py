"""What a client and the engine's child process say to each other: commands and events.

How they are framed is `engine.wire`.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from engine.common.figures import Figures as Figures
from engine.common.insight import Insight as Insight
from engine.common.sampling_values import SAMPLING_LIMITS as SAMPLING_LIMITS
from engine.common.sampling_values import PartialSampling as PartialSampling
from engine.common.sampling_values import Sampling as Sampling
from engine.common.sampling_values import check_sampling as check_sampling
from engine.errors import KtchatError

Role = Literal["system", "user", "assistant"]
Reason = Literal["stop", "length", "context", "cancelled", "repeats"]
"""Why a reply ended: by itself, at its limit, at the context's end, by the person, going round in circles."""
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
class Begun:
    """What there is of a reply already, reasoning and text: it goes on from its end."""

    thinking: str = ""
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Generate:
    """Answer a conversation. `id` is echoed by `Cancel`. `think` None: as the template has it.

    `begun` None: the reply begins with its first token. Else the events and figures are of what is new. `session` names whose the KV cache on the disk is; None: nothing of this one goes there.
    """

    id: int
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    think: Think | None = None
    session: str | None = None
    begun: Begun | None = None
    watch: bool = False
    """Whether the reply is stopped when it repeats itself."""


@dataclass(frozen=True, slots=True)
class Count:
    """Count the tokens of a conversation, whatever else is going on. `id` is echoed by `Counted`."""

    id: int
    messages: tuple[Message, ...]
    think: Think | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop request `id`; it ends with `Finished("cancelled")`. Unknown ids are ignored."""

    id: int


@dataclass(frozen=True, slots=True)
class AnswerNow:
    """End the thinking of request `id`: the model goes on with its reply. Else ignored."""

    id: int


@dataclass(frozen=True, slots=True)
class Observe:
    """Whether somebody watches how replies are computed: then `Insight` comes while they are written, too."""

    on: bool


@dataclass(frozen=True, slots=True)
class Close:
    """Free everything and exit, once what is to go to the disk is there, but within so many `seconds`."""

    seconds: float = 0.0


Command = Load | Generate | Count | Cancel | AnswerNow | Observe | Close

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
class Quiet:
    """The engine gives no sign of life (`quiet`), or does again. Said by its parent, never by itself."""

    quiet: bool


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
    origin: str = ""
    """Scheme, host and port of the server that computes; empty: it is computed here."""


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
class Finished:
    """The reply is complete; the last event of a request that did not fail."""

    reason: Reason
    figures: Figures


@dataclass(frozen=True, slots=True)
class Failed:
    """The command failed; the last event of its request."""

    error: KtchatError


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer to a `Count`, beside the events of other commands."""

    id: int
    tokens: int | None = None
    """Of the prompt; None: it cannot be counted."""
    cached: int = 0
    """Of these, what the KV cache in memory has; 0 while a command is at work."""
    each: tuple[int, ...] = ()
    """Of each message's text alone."""


Event = (
    Progress
    | Notice
    | Quiet
    | Loaded
    | Prefilled
    | Thinking
    | Text
    | WasThinking
    | Insight
    | Finished
    | Failed
)

Last = Loaded | Finished | Failed
"""What ends a command's events."""


def coalesced(last: Event | Counted, event: Event | Counted) -> Event | None:
    """One event that says what both say; None where they cannot be one."""
    match last, event:
        case Text(), Text():
            return Text(last.text + event.text, last.tokens + event.tokens)
        case Thinking(), Thinking():
            return Thinking(last.text + event.text, last.tokens + event.tokens)
        case Progress(), Progress() if last.stage == event.stage:
            return event
    return None


Queued = TypeVar("Queued", Event, Event | Counted)


def enqueue(events: MutableSequence[Queued], event: Queued) -> None:
    """Add an event behind those that nobody has taken yet: text is joined, and of insights the last one is kept."""
    if isinstance(event, Insight) and any(isinstance(one, Insight) for one in events):
        others = [one for one in events if not isinstance(one, Insight)]
        events.clear()
        for one in others:
            enqueue(events, one)
    both = coalesced(events[-1], event) if events else None
    if both is None:
        events.append(event)
    else:
        events[-1] = both
