"""The decode loop: prefill the prompt, then sample, emit, forward, until the reply ends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from engine.common.units import count
from engine.errors import ContextError, RequestError
from engine.generation.observing import Observer
from engine.generation.repetition import RepetitionWatch
from engine.generation.resuming import resume
from engine.generation.sampling import Sampler
from engine.protocol import (
    Event,
    Figures,
    Finished,
    Generate,
    Notice,
    Prefilled,
    Progress,
    Reason,
)
from engine.runtimes.base import CancelFlag, CancelledError, Floats, Model
from engine.text.reader import Said
from engine.text.thinking import Splitter
from engine.text.tokenizer import Part

MESSAGE_ENDS = 2
"""Of a prompt: behind the last message of the person, and behind the reply before it."""

Emit = Callable[[Event], None]


def reply(
    model: Model,
    request: Generate,
    cancelled: CancelFlag,
    emit: Emit,
    answer_now: CancelFlag | None = None,
    observed: CancelFlag | None = None,
) -> None:
    """Answer `request`: emits Notice, Progress, Prefilled, Thinking, Text, WasThinking and Insight, at last
    `Finished`. Thinking ends when `answer_now` is raised, which lowers it; while `observed` is, `Insight` comes on
    the way too.

    Raises `RequestError`, `TemplateError` and `ContextError` before anything runs, and whatever the
    runtime raises.
    """
    wish = CancelFlag() if answer_now is None else answer_now
    watched = CancelFlag() if observed is None else observed
    turn = _Turn(model, request, cancelled, emit, wish, watched)
    logits = turn.prefill()
    reason: Reason = "cancelled" if logits is None else turn.decode(logits)
    emit(Finished(reason, turn.figures))


def _prompt(model: Model, request: Generate, emit: Emit) -> tuple[list[int], Splitter]:
    """The tokens of the prompt and of what there is of the reply, and the reader of what comes behind them."""
    if not request.messages:
        raise RequestError("There is nothing to answer", "The conversation holds no message")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise RequestError(f"A reply of {count(request.max_tokens)} tokens is not possible")
    told = model.template.notice
    parts = model.template.render(request.messages, request.think)
    if (notice := model.template.notice) not in (None, told):
        emit(Notice(notice))
    prompt = model.tokenizer.encode(parts)
    if not prompt:
        raise RequestError("There is nothing to answer", "The prompt holds no token")
    tail = parts[-1].text if parts[-1].special else ""
    splitter = Splitter(tail, model.tokenizer.marks)
    if request.begun is not None:
        cached = model.runtime.behind(prompt)
        tokens, splitter = resume(model.tokenizer, tail, request.begun, cached)
        prompt += tokens
    context = model.runtime.context
    if len(prompt) >= context:
        raise ContextError(
            "The conversation is longer than the model's context",
            f"It has {count(len(prompt))} tokens; the context holds {count(context)}, the reply included",
            f"Cut at least {count(len(prompt) - context + 1)} tokens, or start a new session",
        )
    return prompt, splitter


class _Turn:
    """One reply on its way; `figures` say how far it is."""

    def __init__(
        self,
        model: Model,
        request: Generate,
        cancelled: CancelFlag,
        emit: Emit,
        answer_now: CancelFlag,
        observed: CancelFlag,
    ) -> None:
        self.started = time.perf_counter()
        self.model = model
        self.runtime = model.runtime
        self.cancelled = cancelled
        self.emit = emit
        self.answer_now = answer_now
        self.ahead = model.speculation
        self.forced: deque[int] = deque()
        self.prompt, self.splitter = _prompt(model, request, emit)
        self.observer = Observer(model, len(self.prompt), observed, emit)
        self.thought_before = self.splitter.thinking_tokens
        self.sampler = Sampler(request.sampling, self.prompt)
        self.watch = RepetitionWatch() if request.watch else None
        left = self.runtime.context - len(self.prompt)
        self.room = min(left, request.max_tokens or left)
        self.full: Reason = "length" if self.room == request.max_tokens else "context"
        self.figures = Figures(
            prompt_tokens=len(self.prompt),
            context_used=len(self.prompt),
            context_size=self.runtime.context,
            seed=self.sampler.seed,
        )

    def prefill(self) -> Floats | None:
        """Forward the prompt in chunks. Logits of its last token; None when cancelled."""
        done = cached = self.runtime.begin(self.prompt, self._message_ends())
        self._note(cached_tokens=cached)
        self.emit(Progress("prefill", done, len(self.prompt)))
        restored = self._restore()
        done = cached = cached + restored
        started = time.perf_counter()
        logits = self.runtime.logits if done == len(self.prompt) else None
        while done < len(self.prompt):
            chunk = self.prompt[done : done + self.runtime.chunk]
            logits = self._forward(chunk)
            if logits is None:
                return None
            done += len(chunk)
            seconds = time.perf_counter() - started
            self._note(prefill_seconds=seconds)
            self.emit(Progress("prefill", done, len(self.prompt), seconds))
        self.emit(Prefilled(done, cached, self.figures.prefill_seconds, restored))
        return logits

    def _restore(self) -> int:
        """How many tokens come from the disk."""
        if self.model.on_disk is None:
            return 0
        started = time.perf_counter()

        def report(there: int) -> bool:
            seconds = time.perf_counter() - started
            self.emit(Progress("prefill", there, len(self.prompt), seconds))
            return not self.cancelled

        restored = self.model.on_disk.restore(self.prompt, report)
        if restored:
            cached = self.figures.cached_tokens + restored
            seconds = time.perf_counter() - started
            self._note(cached_tokens=cached, restored_tokens=restored, restore_seconds=seconds)
        return restored

    def _message_ends(self) -> list[int]:
        """Where the last messages of the prompt end: a later prompt may go on differently from there."""
        is_end, ends = self.model.tokenizer.is_end, []
        for position in range(len(self.prompt), 0, -1):
            if is_end(self.prompt[position - 1]):
                ends.append(position)
                if len(ends) == MESSAGE_ENDS:
                    break
        return ends

    def decode(self, logits: Floats) -> Reason:
        """Sample, emit, forward, until the reply ends. Returns why it did."""
        self.observer.begin()
        reason = self._decode_ahead(logits)
        self.observer.end()
        return reason

    def _decode_ahead(self, logits: Floats) -> Reason:
        if self.ahead is None:
            return self._decode(logits)
        self.ahead.begin(self.prompt)
        try:
            return self._decode(logits)
        finally:
            self.ahead.end()
            self._note(
                drafted_tokens=self.ahead.drafted,
                accepted_tokens=self.ahead.accepted,
                saved_seconds=self.ahead.saved_seconds,
            )

    def _decode(self, logits: Floats) -> Reason:
        tokenizer, pieces = self.model.tokenizer, self.model.tokenizer.decoder()
        reason: Reason | None = None
        while reason is None:
            token = self._next(logits)
            if token is None:
                reason = "stop"
                break
            self._count()
            repeats = self.watch is not None and self.watch.add(token)
            if mark := tokenizer.mark(token):
                self._say(self.splitter.feed(pieces.flush(), tokens=0))
                self._say(self.splitter.feed(mark, control=True))
            else:
                self._say(self.splitter.feed(pieces.feed(token)))
            if self.figures.reply_tokens == self.room:
                reason = self.full
            elif repeats:
                reason = "repeats"
            elif (following := self._after(token)) is None:
                reason = "cancelled"
            else:
                logits = following
        self._say(self.splitter.feed(pieces.flush(), tokens=0))
        self._say(self.splitter.flush())
        return reason

    def _next(self, logits: Floats) -> int | None:
        """The next token: of what ends the thinking, or sampled; None where the reply ends.

        What is forced goes one by one through the same loop, so that figures need no exception.
        """
        if self.answer_now and self.splitter.closing and not self.forced:
            self.answer_now.clear()
            self.forced.extend(
                self.model.tokenizer.encode_more([Part(self.splitter.force(), True)])
            )
        if self.forced:
            token = self.forced.popleft()
            self.sampler.note(token)
            return token
        token = self.sampler.next(logits[: self.model.tokenizer.vocab_size])
        return None if self.model.tokenizer.is_end(token) else token

    def _after(self, token: int) -> Floats | None:
        """Logits after one token of the reply; None as in `_forward`."""
        ahead = self.ahead
        if ahead is None:
            return self._forward([token])
        left = self.room - self.figures.reply_tokens
        return self._unless_cancelled(lambda: ahead.forward(token, left))

    def _forward(self, tokens: list[int]) -> Floats | None:
        """Logits after `tokens`; None when cancelled before or meanwhile."""
        return self._unless_cancelled(lambda: self.runtime.forward(tokens))

    def _unless_cancelled(self, forward: Callable[[], Floats]) -> Floats | None:
        if self.cancelled:
            return None
        try:
            return forward()
        except CancelledError:
            return None

    def _count(self) -> None:
        """Account for one token of the reply, just sampled."""
        elapsed = time.perf_counter() - self.started
        if self.figures.reply_tokens == 0:
            self._note(first_token_seconds=elapsed)
        self._note(
            reply_tokens=self.figures.reply_tokens + 1,
            context_used=self.figures.context_used + 1,
            decode_seconds=elapsed - self.figures.first_token_seconds,
        )
        self.observer.token(self.figures.decode_seconds)

    def _say(self, events: Iterable[Said]) -> None:
        for event in events:
            self.emit(event)
        self._note(thinking_tokens=max(0, self.splitter.thinking_tokens - self.thought_before))

    def _note(self, **changes: float) -> None:
        self.figures = replace(self.figures, **changes)  # type: ignore[arg-type]
