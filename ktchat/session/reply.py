"""One reply being written: the engine's events, noted in a turn and made safe to draw."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.errors import EngineError, KtchatError
from engine.protocol import (
    Begun,
    Counted,
    Event,
    Failed,
    Figures,
    Finished,
    Load,
    Loaded,
    Message,
    Notice,
    Sampling,
    Text,
    Think,
    Thinking,
    WasThinking,
)
from ktchat.common.errors import shown_error
from ktchat.common.text import Sanitiser, one_line, sanitise
from ktchat.store.conversation import Turn, TurnState


class Engine(Protocol):
    """What a chat needs of `engine.client.Engine`."""

    @property
    def loaded(self) -> Loaded | None:
        """The model that answers."""

    def load(self, command: Load, /) -> AsyncIterator[Event]:
        """Progress and Notice, then Loaded or Failed."""

    def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        max_tokens: int | None,
        think: Think | None,
        session: str | None,
        begun: Begun | None = None,
        /,
        *,
        watch: bool = False,
    ) -> AsyncIterator[Event]:
        """Progress, Prefilled, Thinking, Text, WasThinking, Notice, Insight, Quiet, then Finished or Failed."""

    async def count(
        self, messages: Sequence[Message], think: Think | None = None, /
    ) -> Counted | None:
        """A conversation's tokens; None: they cannot be counted."""

    def answer_now(self) -> None:
        """End the thinking of the reply that is being written, if it is thinking."""

    def observe(self, on: bool, /) -> None:
        """Have `Insight` sent while a reply is written, and not at its end alone."""

    def cancel(self) -> None:
        """Stop what is running, if anything."""

    async def close(self, seconds: float = 0.0, /) -> None:
        """Free everything; for so many seconds what was read may be written to the disk."""


@dataclass(frozen=True, slots=True)
class Started:
    """The message is in the conversation (and on the disk, if that can be written).

    `replaced` left the conversation for it: the turn that was regenerated, edited or retried.
    """

    turn: Turn
    replaced: Turn | None = None


Update = Started | Event
"""What a message brings: `Started` first, `Finished` or `Failed` last."""


class Reply:
    """The reply to one turn; it goes on behind what is there. `changed(tokens)` is called whenever the turn has changed.

    `session` is whose the KV cache on the disk is; None: nothing of it goes there.
    """

    def __init__(
        self,
        engine: Engine,
        turn: Turn,
        session: str | None,
        think: Think | None,
        changed: Callable[[int], None],
        *,
        watch: bool = False,
    ) -> None:
        self.turn = turn
        self.session = session
        self.think = think
        self.watch = watch
        self.stopping = False
        self._engine = engine
        self._changed = changed
        self._text, self._thinking = Sanitiser(), Sanitiser()
        self._before = turn.figures if turn.raw_reply or turn.raw_thinking else None
        self._begun: Begun | None = None
        if turn.raw_reply or turn.raw_thinking:
            self._begun = Begun(turn.raw_thinking, turn.raw_reply)
            self._text.feed(turn.raw_reply)
            self._thinking.feed(turn.raw_thinking)

    def stop(self) -> None:
        """Ask for the end; the events go on to `Finished("cancelled")`."""
        self.stopping = True
        self._engine.cancel()

    def settle(self) -> None:
        """Give the turn an end if it has none: its reader went away, or the program ends."""
        if self.turn.state == TurnState.STREAMING:
            self._engine.cancel()
            self.turn.state = TurnState.STOPPED if self.stopping else TurnState.INTERRUPTED
            self._changed(0)

    async def events(self, messages: Sequence[Message]) -> AsyncGenerator[Event, None]:
        """The events as they may be shown, each noted in the turn before it is yielded.

        Ends with `Finished` or `Failed`, whatever the engine does.
        """
        async with contextlib.aclosing(self._raw_events(messages)) as events:
            async for event in events:
                yield self._take(event)
                if isinstance(event, Finished | Failed):
                    return
        yield self._take(Failed(EngineError("The engine ended the reply without a word", "", "")))

    async def _raw_events(self, messages: Sequence[Message]) -> AsyncGenerator[Event, None]:
        if self.stopping:  # before the engine was even asked
            yield Finished("cancelled", Figures())
            return
        turn = self.turn
        how = turn.sampling, turn.max_tokens, self.think
        rest = self.session, self._begun
        stream = self._engine.generate(messages, *how, *rest, watch=self.watch)
        try:
            async for event in stream:
                if self.stopping and not isinstance(event, Finished | Failed):
                    self._engine.cancel()  # the first may have come before the request began
                yield event
        except KtchatError as error:
            yield Failed(error)
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    def _take(self, event: Event) -> Event:
        turn = self.turn
        match event:
            case Text(text, tokens):
                turn.raw_reply += text
                self._changed(tokens)
                return Text(self._text.feed(text), tokens)
            case Thinking(text, tokens):
                turn.raw_thinking += text
                self._changed(tokens)
                return Thinking(self._thinking.feed(text), tokens)
            case WasThinking():
                turn.rethink()
                self._text = Sanitiser()
                self._changed(0)
            case Finished(reason, figures):
                cancelled = reason == "cancelled"
                turn.state = TurnState.STOPPED if cancelled else TurnState.COMPLETE
                turn.reason, turn.figures = reason, _joined(self._before, figures)
                self._changed(0)
            case Failed(error):
                turn.state, turn.error = TurnState.FAILED, shown_error(error)
                self._changed(0)
            case _:
                pass
        return shown(event)


def _joined(before: Figures | None, after: Figures) -> Figures:
    """The figures of a reply that went on: what was sampled in all, and the prompt as it was read last."""
    if before is None:
        return after
    return dataclasses.replace(
        after,
        reply_tokens=before.reply_tokens + after.reply_tokens,
        thinking_tokens=before.thinking_tokens + after.thinking_tokens,
        decode_seconds=before.decode_seconds + after.decode_seconds,
        first_token_seconds=before.first_token_seconds,
        context_used=after.context_used or before.context_used,
    )


def shown(event: Event) -> Event:
    """An event whose texts are safe to draw; `Text` and `Thinking` are not its business."""
    match event:
        case Notice(text):
            return Notice(one_line(text, 400))
        case Failed(error):
            return Failed(shown_error(error))
        case Loaded():
            return dataclasses.replace(
                event,
                path=sanitise(event.path),
                name=one_line(event.name),
                architecture=one_line(event.architecture),
                quantisation=one_line(event.quantisation),
            )
    return event
