"""A scripted engine with the API of `engine.client.Engine`: no process, no model, no weights.

Each request takes the next `Reply` of the script (the last one repeats; without a script the
engine echoes the last message). What it was asked is in `requests`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from engine.errors import ContextError, KtchatError, RequestError
from engine.protocol import (
    Begun,
    Computed,
    Counted,
    Event,
    Failed,
    Figures,
    Finished,
    Load,
    Loaded,
    Message,
    Notice,
    PartialSampling,
    Prefilled,
    Progress,
    Quiet,
    Reason,
    Sampling,
    Text,
    Think,
    Thinking,
    WasThinking,
)


@dataclass(frozen=True)
class Reply:
    """One scripted reply. Seconds are real; 0 only yields to the event loop."""

    text: str = ""
    thinking: str = ""
    unopened: str = ""
    """Said as text first; then it proves to have been thinking."""
    token_seconds: float = 0.0
    """Pause before each token (about a word)."""
    prefill_seconds: float = 0.0
    prefill_steps: int = 0
    """How many `Progress("prefill")` events come before `Prefilled`."""
    notice: str = ""
    """A `Notice` before the first token."""
    error: KtchatError | None = None
    """The request fails with this ..."""
    error_after: int = 0
    """... after so many tokens (0: before the first, instead of `Prefilled`)."""
    reason: Reason = "stop"
    hold_after: int | None = None
    """Before the token after so many, wait for `go_on()` or the end."""
    quiet: bool = False
    """While it waits it gives no sign of life."""


@dataclass(frozen=True)
class Request:
    """What `generate` was called with."""

    messages: tuple[Message, ...]
    sampling: Sampling
    max_tokens: int | None
    think: Think | None = None
    begun: Begun | None = None
    watch: bool = False


def loaded(
    name: str = "Fake",
    context: int = 4096,
    device: Computed = "CPU",
    think: tuple[Think, ...] = (),
    sampling: PartialSampling | None = None,
) -> Loaded:
    """A `Loaded` event for a model that does not exist; the second choice of `think` is its own."""
    return Loaded(
        path=f"/models/{name.lower()}.gguf",
        name=name,
        architecture="qwen3moe",
        quantisation="Q4_K_M",
        runtime="native",
        context=context,
        weights_bytes=16 << 20,
        kv_bytes_per_token=1024,
        seconds=0.1,
        device=device,
        think=think,
        think_default=think[1] if think else None,
        sampling=sampling or PartialSampling(),
    )


@dataclass
class FakeEngine:
    """`FakeEngine(["Hello.", Reply(text="...", token_seconds=0.01)])`.

    `load_error` makes the next load fail; `load_seconds` and `load_steps` shape its progress.
    `kill()` ends the request in progress as the death of the child process does.
    """

    script: Iterable[Reply | str] = ()
    context: int = 4096
    load_seconds: float = 0.0
    load_steps: int = 2
    load_error: KtchatError | None = None
    load_notice: str = ""
    """A `Notice` for each of its lines."""
    gpu: Computed = "CPU"
    """What computes, unless the CPU was asked for."""
    think: tuple[Think, ...] = ()
    """What the model offers of thinking; the second one is its own."""
    own_sampling: PartialSampling | None = None
    hold_load: bool = False
    """A load waits for `go_on()` after its first step."""
    loaded: Loaded | None = None
    requests: list[Request] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    closed: bool = False
    observed: bool = False

    def __post_init__(self) -> None:
        self._replies = [Reply(text=r) if isinstance(r, str) else r for r in self.script]
        self._cancelled = asyncio.Event()
        self._going = asyncio.Event()
        self._answer_now = False
        self._killed: KtchatError | None = None
        self._cached = 0

    async def load(self, command: Load) -> AsyncIterator[Event]:
        """Progress, then Loaded or Failed."""
        self.loads.append(command)
        self._going.clear()
        self.loaded = None
        if self.load_error is not None:
            error, self.load_error = self.load_error, None
            yield Failed(error)
            return
        for step in range(1, self.load_steps + 1):
            await asyncio.sleep(self.load_seconds / self.load_steps)
            yield Progress("load", step * 1000, self.load_steps * 1000, self.load_seconds)
            if self.hold_load:
                await self._going.wait()
        for notice in filter(None, self.load_notice.split("\n")):
            yield Notice(notice)
        name = command.path.rsplit("/", 1)[-1].removesuffix(".gguf") or "Fake"
        context = command.context if isinstance(command.context, int) else self.context
        device: Computed = "CPU" if command.device == "cpu" else self.gpu
        self.loaded = loaded(name, context, device, self.think, self.own_sampling)
        yield self.loaded

    async def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        think: Think | None = None,
        session: str | None = None,
        begun: Begun | None = None,
        *,
        watch: bool = False,
    ) -> AsyncIterator[Event]:
        """The next scripted reply as events."""
        sampling = sampling or Sampling()
        self.requests.append(Request(tuple(messages), sampling, max_tokens, think, begun, watch))
        self._answer_now = False
        self._cancelled.clear()
        self._going.clear()
        self._killed = None
        if self.loaded is None:
            yield Failed(RequestError("No model is loaded", "", "Load a model first"))
            return
        async for event in self._answer(self._next(messages), sampling, max_tokens):
            yield event

    async def count(
        self, messages: Sequence[Message], think: Think | None = None
    ) -> Counted | None:
        """A word is a token, and four are around each message."""
        if self.loaded is None:
            return None
        each = tuple(len(_tokens(message.content)) for message in messages)
        return Counted(0, sum(each) + 4 * len(each), 0, each)

    def cancel(self) -> None:
        """End the request in progress with `Finished("cancelled")`."""
        self._cancelled.set()
        self._going.set()

    def answer_now(self) -> None:
        """Leave out the rest of the thinking."""
        self._answer_now = True
        self._going.set()

    def observe(self, on: bool) -> None:
        """Remember whether somebody watches."""
        self.observed = on

    def go_on(self) -> None:
        """Let what is held (`hold_after`, `hold_load`) go on."""
        self._going.set()

    def kill(self, error: KtchatError) -> None:
        """End the request in progress with `Failed(error)`."""
        self._killed = error
        self.cancel()

    async def close(self, seconds: float = 0.0) -> None:
        """Forget the model."""
        self.cancel()
        self.loaded = None
        self.closed = True

    def _next(self, messages: Sequence[Message]) -> Reply:
        if not self._replies:
            return Reply(text=f"You said: {messages[-1].content}")
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    async def _answer(
        self, reply: Reply, sampling: Sampling, max_tokens: int | None
    ) -> AsyncIterator[Event]:
        prompt = sum(len(_tokens(m.content)) + 4 for m in self.requests[-1].messages)
        start = time.perf_counter()
        if prompt >= self.loaded_context:
            yield Failed(ContextError("The conversation is longer than the model's context"))
            return
        for step in range(1, reply.prefill_steps + 1):
            if await self._pause(reply.prefill_seconds / reply.prefill_steps):
                yield self._end(Figures(prompt_tokens=prompt, context_size=self.loaded_context))
                return
            done = prompt * step // reply.prefill_steps
            yield Progress("prefill", done, prompt, time.perf_counter() - start)
        if reply.error is not None and reply.error_after == 0:
            yield Failed(reply.error)
            return
        yield Prefilled(prompt, min(self._cached, prompt - 1), time.perf_counter() - start)
        if reply.notice:
            yield Notice(reply.notice)
        async for event in self._stream(reply, sampling, max_tokens, prompt, start):
            yield event

    async def _stream(
        self, reply: Reply, sampling: Sampling, limit: int | None, prompt: int, start: float
    ) -> AsyncIterator[Event]:
        prefilled = first = time.perf_counter()
        thought, said, cut = 0, 0, False
        script = [(Text, t) for t in _tokens(reply.unopened)]
        script += [(WasThinking, "")] if reply.unopened else []
        script += [(Thinking, t) for t in _tokens(reply.thinking)]
        for kind, token in [*script, *((Text, t) for t in _tokens(reply.text))]:
            if kind is WasThinking:
                yield WasThinking()
                thought, said = thought + said, 0
                continue
            if cut := limit is not None and thought + said >= limit:
                break
            if reply.error is not None and thought + said >= reply.error_after:
                yield Failed(reply.error)
                return
            if thought + said == reply.hold_after:
                if reply.quiet:
                    yield Quiet(True)
                await self._going.wait()
                if reply.quiet:
                    yield Quiet(False)
            if kind is Thinking and self._answer_now:
                continue
            if await self._pause(reply.token_seconds):
                break
            first = first if thought + said else time.perf_counter()
            thought, said = thought + (kind is Thinking), said + (kind is Text)
            yield kind(token)
        if reply.error is not None and not self._cancelled.is_set():
            yield Failed(reply.error)
            return
        self._cached = prompt + thought + said
        yield self._end(
            Figures(
                prompt_tokens=prompt,
                reply_tokens=thought + said,
                thinking_tokens=thought,
                prefill_seconds=prefilled - start,
                first_token_seconds=first - start,
                decode_seconds=time.perf_counter() - first,
                context_used=self._cached,
                context_size=self.loaded_context,
                seed=sampling.seed if sampling.seed is not None else 1234,
            ),
            "length" if cut else reply.reason,
        )

    @property
    def loaded_context(self) -> int:
        """Tokens of context of the loaded model."""
        return self.loaded.context if self.loaded else self.context

    def _end(self, figures: Figures, reason: Reason = "stop") -> Event:
        if self._killed is not None:
            return Failed(self._killed)
        return Finished("cancelled" if self._cancelled.is_set() else reason, figures)

    async def _pause(self, seconds: float) -> bool:
        """Wait; True when the request was cancelled meanwhile."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return self._cancelled.is_set()
        try:
            async with asyncio.timeout(seconds):
                await self._cancelled.wait()
        except TimeoutError:
            return False
        return True


def _tokens(text: str) -> list[str]:
    """Words with the space before them, and newlines: about what a tokeniser makes of text."""
    return re.findall(r"\s?\S+|\s", text)
