"""`RemoteEngine`: a model on a server behind the engine's API.

Nothing of it is computed or kept here: there is no plan and no KV cache on the disk. What a server cannot do
is said in words.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from engine.common.threads import ask
from engine.errors import KtchatError, RequestError, thinking_not_offered
from engine.process.event_queue import EventQueue
from engine.protocol import (
    Begun,
    Counted,
    Event,
    Failed,
    Figures,
    Finished,
    Last,
    Load,
    Loaded,
    Message,
    Notice,
    Sampling,
    Think,
)
from engine.remote import counting, server
from engine.remote.address import Address, parse
from engine.remote.answering import Answering, Say
from engine.remote.http import Http
from engine.remote.request import Refused, body
from engine.remote.server import ServedModel, Server

DROPPED_SECONDS = 0.1
"""Time in which the event loop closes an iterator that was dropped."""

NO_CONTEXT = "The server does not say how long its context is: --ctx says it, or e in the model manager's servers."


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a server. The key is in no `repr`."""

    key: str = field(default="", repr=False)
    plain: bool = False
    """Whether the person allows the key to go in clear over a network that is not private."""
    context: int = 0
    """Tokens of context, where the server does not say it; 0: unknown."""


Opens = Callable[[Address], "Access"]
"""What opens a server. Blocks shortly."""


class RemoteEngine:
    """One model on one server, one request at a time. Its events are those of `engine.client.Engine`."""

    quiet_seconds = 15.0
    """Seconds without a byte after which the server is asked whether it still is there."""

    def __init__(self, opens: Opens = lambda address: Access()) -> None:
        self.loaded: Loaded | None = None
        self._opens = opens
        self._http: Http | None = None
        self._server: Server | None = None
        self._model = ServedModel("")
        self._refused = Refused()
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False
        self._closed = False

    async def load(self, load: Load) -> AsyncGenerator[Event, None]:
        """Connect to the server at `load.path` and choose the model there: Loaded or Failed."""
        stopped = Failed(RequestError("Loading was stopped"))
        async with aclosing(self._run(lambda say: self._connect(load, say), stopped)) as events:
            async for event in events:
                yield event

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
    ) -> AsyncGenerator[Event, None]:
        """Have the server answer: Thinking, Text, WasThinking, Notice, Quiet, then Finished or Failed.

        What the server does with its cache, and with a reply that repeats itself, is its own: `session` and
        `watch` change nothing.
        """
        chosen = sampling or Sampling()
        said = tuple(messages)
        stopped = Finished("cancelled", Figures())

        async def work(say: Say) -> None:
            await self._answer(said, chosen, max_tokens, think, begun, say)

        async with aclosing(self._run(work, stopped)) as events:
            async for event in events:
                yield event

    async def count(
        self, messages: Sequence[Message], think: Think | None = None
    ) -> Counted | None:
        """The tokens of a conversation, as the server counts them; None: it does not."""
        http, known = self._http, self._server
        if http is None or known is None or self.loaded is None:
            return None
        try:
            return await counting.count(http, known.kind, self._model.name, messages)
        except KtchatError:
            return None

    def cancel(self) -> None:
        """Stop what is running: the connection is closed, and the server sees that nobody reads."""
        if self._task is not None and not self._task.done():
            self._cancelled = True
            self._task.cancel()

    def answer_now(self) -> None:
        """A server has no way to end a model's thinking: nothing happens."""

    def observe(self, on: bool) -> None:
        """Ignored: a server does not say how it computes."""

    async def close(self, seconds: float = 0.0) -> None:
        """Close the connections. The engine cannot be used again."""
        self._closed = True
        self.loaded = None
        self.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})
        if self._http is not None:
            await self._http.close()

    # Inside.

    async def _run(
        self, work: Callable[[Say], Coroutine[None, None, None]], stopped: Last
    ) -> AsyncGenerator[Event, None]:
        """The events of one piece of work, done in a task that can be cancelled; then it ends with `stopped`."""
        if self._task is not None and not self._task.done():
            # One that was stopped ends soon; an iterator dropped just now is closed by the loop.
            await asyncio.wait({self._task}, timeout=None if self._cancelled else DROPPED_SECONDS)
        if self._closed or (self._task is not None and not self._task.done()):
            what = "The engine is closed" if self._closed else "The engine is busy"
            yield Failed(RequestError(what, "", "" if self._closed else "Stop it first"))
            return
        self._cancelled = False
        queue = EventQueue()
        task = self._task = asyncio.create_task(_told(work(queue.put), queue.put), name="remote")
        task.add_done_callback(lambda _: None if queue.ended.done() else queue.put(stopped))
        try:
            event: Event | None = None
            while not isinstance(event, Last):
                event = await queue.get()
                yield event
        finally:
            queue.abandon()
            if not task.done():  # perhaps long after the next one has begun
                task.cancel()
                await asyncio.wait({task})

    async def _connect(self, load: Load, say: Say) -> None:
        began = time.perf_counter()
        self.loaded = None
        if self._http is not None:
            await self._http.close()
        address = parse(load.path)
        access = await ask(self._opens, address)
        self._http = http = Http(address, access.key, access.plain)
        self._refused = Refused()
        self._server = await server.look(http)
        model = server.chosen(self._server, address)
        context = await server.context_of(http, self._server.kind, model)
        asked = load.context if isinstance(load.context, int) else 0
        self._model = replace(model, context=context)
        self.loaded = Loaded(
            path=str(Address(address.base, model.name)),
            name=model.short_name,
            architecture="",
            quantisation="",
            runtime=self._server.kind if self._server.kind != "other" else "server",
            context=context or asked or access.context,
            weights_bytes=0,
            kv_bytes_per_token=0,
            seconds=time.perf_counter() - began,
            think=await server.thinking_of(http, self._server.kind, model),
            origin=address.origin,
        )
        if not self.loaded.context and self._server.kind != "Ollama":
            say(Notice(NO_CONTEXT))
        say(self.loaded)

    async def _answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        max_tokens: int | None,
        think: Think | None,
        begun: Begun | None,
        say: Say,
    ) -> None:
        http, known, loaded = self._http, self._server, self.loaded
        if http is None or known is None or loaded is None:
            raise RequestError("No model is loaded", "", "Open a model first")
        if think is not None and think not in loaded.think:
            raise thinking_not_offered(loaded.name, think, loaded.think)
        seed = random.getrandbits(32) if sampling.seed is None else sampling.seed
        fields = body(
            known.kind, self._model.name, messages, sampling, seed, max_tokens, begun, think
        )
        answering = Answering(http, fields, self._refused, loaded.context, self.quiet_seconds)
        try:
            await answering.run(say)
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            for event in answering.rest():
                say(event)
            say(Finished("cancelled", self._sized(answering.figures())))
            return
        if not loaded.context:
            await self._learn_context(http, known)
        say(Finished(answering.reason, self._sized(answering.figures())))

    async def _learn_context(self, http: Http, known: Server) -> None:
        """Some servers say their context only once they have the model in memory."""
        with suppress(KtchatError):
            context = await server.context_of(http, known.kind, self._model)
            if context and self.loaded is not None:
                self.loaded = replace(self.loaded, context=context)

    def _sized(self, figures: Figures) -> Figures:
        return replace(figures, context_size=self.loaded.context if self.loaded else 0)


async def _told(work: Coroutine[None, None, None], say: Say) -> None:
    """Do the work; `say` is told why it failed."""
    try:
        await work
    except KtchatError as error:
        say(Failed(error))
