"""`Engine`: the async API of the engine, in front of its child process.

It remembers which model is wanted, starts the child when one is needed and again after it died.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import overload

from engine.errors import EngineError, KtchatError, RequestError
from engine.process.child import WORKER, Child
from engine.process.event_queue import EventQueue
from engine.process.exit_report import AGAIN
from engine.protocol import (
    AnswerNow,
    Begun,
    Cancel,
    Close,
    Count,
    Counted,
    Event,
    Failed,
    Figures,
    Finished,
    Generate,
    Last,
    Load,
    Loaded,
    Message,
    Notice,
    Observe,
    Sampling,
    Think,
)

CLOSE_SECONDS = 0.5
"""Time the child has to end by itself."""
CANCEL_SECONDS = 120.0
"""Time the child has to stop a reply: one chunk of a very large model's prefill may take a minute."""
HEED_SECONDS = 0.5
"""How often it is looked at meanwhile, and what a child that was quiet before still gets."""

COUNT_SECONDS = 10.0
"""Longest wait for a count: who sends is told by the reply whether it fits."""

DROPPED_SECONDS = 0.1
"""Time in which the event loop closes an iterator that was dropped."""


class Engine:
    """One model in one child process, one request at a time.

    Every iterator ends with `Failed`, or with `Loaded` or `Finished`; it raises nothing. Leaving one
    early stops its request.
    """

    def __init__(self, worker: Sequence[str] = WORKER) -> None:
        """`worker` is the command of the child; the number of its socket is added to it."""
        self.loaded: Loaded | None = None
        self._worker = worker
        self._child: Child | None = None
        self._wanted: Load | None = None
        self._busy = False
        self._free = asyncio.Event()
        self._closed = False
        self._id = 0
        self._running: Generate | Load | None = None
        self._cancelled = False
        self._observing = False

    @property
    def log(self) -> str:
        """The end of what the child printed, for a bug report."""
        return "" if self._child is None else self._child.log_tail()

    async def load(self, load: Load) -> AsyncGenerator[Event, None]:
        """Load a model in place of the one that is loaded: Progress, Notice, then Loaded or Failed."""
        if (refusal := await self._refusal()) is not None:
            yield Failed(refusal)
            return
        with self._at_work():
            async with aclosing(self._load(load)) as events:
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
        """Answer a conversation: Progress, Prefilled, Thinking, Text, WasThinking, Notice, Insight, then Finished
        or Failed. `think` is one of `Loaded.think`; None: as the template has it. `session`, `begun`: see `Generate`.

        Loads the model again first (Progress) when the child has died since.
        """
        if (refusal := await self._refusal()) is None and self._wanted is None:
            refusal = RequestError("No model is loaded", "", "Open a model first")
        if refusal is not None:
            yield Failed(refusal)
            return
        self._id += 1
        chosen = sampling or Sampling()
        said = tuple(messages)
        how = chosen, max_tokens, think, session
        request = Generate(self._id, said, *how, begun=begun, watch=watch)
        with self._at_work():
            async with aclosing(self._answer(request)) as events:
                async for event in events:
                    yield event

    async def count(
        self, messages: Sequence[Message], think: Think | None = None
    ) -> Counted | None:
        """The tokens of a conversation as the model would read it, while something else goes on too.

        None: no model is there, or it cannot be counted.
        """
        child = self._alive()
        if child is None or self.loaded is None:
            return None
        self._id += 1
        try:
            answer = child.count(Count(self._id, tuple(messages), think))
            counted = await asyncio.wait_for(answer, COUNT_SECONDS)
        except (KtchatError, TimeoutError):
            return None
        return counted if counted is not None and counted.tokens is not None else None

    def cancel(self) -> None:
        """Stop what is running, if anything. A reply ends with Finished("cancelled"); a load fails."""
        if not self._busy or self._cancelled:
            return
        self._cancelled = True
        if self._child is not None and self._running is not None:
            self._stop(self._child, self._running)

    def answer_now(self) -> None:
        """End the thinking of the reply that is being written, if it is thinking."""
        if self._child is not None and isinstance(self._running, Generate):
            self._child.send(AnswerNow(self._running.id))

    def observe(self, on: bool) -> None:
        """Have `Insight` sent while a reply is written, a few times a second, and not at its end alone."""
        self._observing = on
        if (child := self._alive()) is not None:
            child.send(Observe(on))

    async def close(self, seconds: float = 0.0) -> None:
        """End the child, whatever it does. The engine cannot be used again.

        For so many `seconds` it may write to the disk what a later start would have to read again.
        """
        self._closed = True
        self.loaded = None
        if self._child is not None:
            await self._child.stop(Close(seconds), seconds + CLOSE_SECONDS)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._busy, self._cancelled = True, False
        self._free.clear()
        try:
            yield
        finally:
            self._busy = False
            self._free.set()

    async def _refusal(self) -> KtchatError | None:
        if self._busy:
            # An iterator dropped just now is closed by the loop, in its next turns.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), DROPPED_SECONDS)
        if self._closed:
            return RequestError("The engine is closed")
        if self._busy:
            return RequestError(
                "The engine is busy", "It does one thing at a time", "Stop it first"
            )
        return None

    async def _load(self, load: Load) -> AsyncGenerator[Event, None]:
        self.loaded = None
        self._wanted = load
        async with aclosing(self._run(load)) as events:
            async for event in events:
                if isinstance(event, Loaded):
                    self.loaded = event
                elif isinstance(event, Failed) and self._alive() is not None:
                    self._wanted = None
                yield event

    async def _answer(self, request: Generate) -> AsyncGenerator[Event, None]:
        if self._child is not None:
            await self._child.noticed()
        if (self._alive() is None or self.loaded is None) and self._wanted is not None:
            async with aclosing(self._load(self._wanted)) as events:
                async for event in events:
                    if isinstance(event, Failed):
                        yield Finished("cancelled", Figures()) if self._cancelled else event
                        return
                    if not isinstance(event, Notice | Loaded):
                        yield event
        async with aclosing(self._run(request)) as events:
            async for event in events:
                yield event

    async def _run(self, command: Load | Generate) -> AsyncGenerator[Event, None]:
        """Send a command to a living child and yield its events."""
        try:
            child = await self._ready()
            if self._cancelled:
                yield _stopped(command)
                return
            events = child.run(command)
        except KtchatError as error:
            yield Failed(error)
            return
        self._running = command
        try:
            event: Event | None = None
            while not isinstance(event, Last):
                event = await events.get()
                if isinstance(event, Last):
                    self._running = None
                yield event
        finally:
            self._running = None
            if not events.ended.done():
                events.abandon()
                if not self._cancelled:
                    self._stop(child, command)

    async def _ready(self) -> Child:
        """A child that waits for a command."""
        child = self._alive()
        if child is not None and child.events is not None:
            # A reply that was left early may still be on its way to its end.
            await asyncio.wait([child.events.ended])
        child = self._alive()
        if child is None:
            self.loaded = None
            self._child = child = await Child.start(self._worker)
            if self._observing:
                child.send(Observe(True))
        if self._closed:
            child.kill(RequestError("The engine is closed"))
        return child

    def _alive(self) -> Child | None:
        return self._child if self._child is not None and self._child.error is None else None

    def _stop(self, child: Child, command: Load | Generate) -> None:
        """End a load with its child, a reply by asking; a child that does not heed is killed."""
        if isinstance(command, Load):
            child.kill(_stopped(command).error)
            return
        child.send(Cancel(command.id))
        events = child.events
        assert events is not None
        loop = asyncio.get_running_loop()
        loop.call_later(HEED_SECONDS, self._enforce, child, events, loop.time() + CANCEL_SECONDS)

    def _enforce(self, child: Child, events: EventQueue, deadline: float) -> None:
        """Kill a child that was told to stop and gives no sign of life, or goes on past the deadline."""
        loop = asyncio.get_running_loop()
        if events.ended.done():
            return
        if child.quiet:
            child.kill(EngineError("The engine hung", "It gave no sign of life", AGAIN))
        elif loop.time() >= deadline:
            why = f"It did not stop in {CANCEL_SECONDS:g} s"
            child.kill(EngineError("The engine hung", why, AGAIN))
        else:
            loop.call_later(HEED_SECONDS, self._enforce, child, events, deadline)


@overload
def _stopped(command: Load) -> Failed: ...
@overload
def _stopped(command: Generate) -> Finished: ...
def _stopped(command: Load | Generate) -> Failed | Finished:
    """How a command ends that was cancelled before it began."""
    if isinstance(command, Load):
        return Failed(RequestError("Loading was stopped"))
    return Finished("cancelled", Figures())
