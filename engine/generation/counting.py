"""Counting a conversation's tokens beside the decode thread, while a reply is being written too.

It asks the tokenizer and the template, which do not mind; the runtime only where no command is at work.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import KtchatError
from engine.protocol import Count, Counted

if TYPE_CHECKING:
    from engine.runtimes.base import Model


class Counting:
    """Answers `Count` in a thread of its own, one after another."""

    def __init__(self, emit: Callable[[Counted], None]) -> None:
        self.at_work = threading.Lock()
        """Held by the decode thread while it may change the runtime's sequences."""
        self._emit = emit
        self._model: Model | None = None
        self._in_use = threading.Lock()  # held while the model is asked
        self._questions: queue.SimpleQueue[Count] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="count", daemon=True).start()

    def ask(self, question: Count) -> None:
        """Answer soon, with one `Counted`."""
        self._questions.put(question)

    def use(self, model: Model | None) -> None:
        """Ask this model from now on. Waits for the answer that is under way: the old one can be closed then."""
        with self._in_use:
            self._model = model

    def _work(self) -> None:
        while True:
            question = self._questions.get()
            with self._in_use:
                answer = self._answer(question, self._model)
            self._emit(answer)

    def _answer(self, question: Count, model: Model | None) -> Counted:
        try:
            if model is None or not question.messages:
                return Counted(question.id)
            parts = model.template.render(question.messages, question.think, quietly=True)
            prompt = model.tokenizer.encode(parts)
            each = tuple(model.tokenizer.count(message.content) for message in question.messages)
            return Counted(question.id, len(prompt), self._cached(model, prompt), each)
        except (KtchatError, MemoryError):
            return Counted(question.id)  # who sends the conversation is told why
        except Exception as error:  # the boundary of the thread: a reply does not end for it
            sys.excepthook(type(error), error, error.__traceback__)
            return Counted(question.id)

    def _cached(self, model: Model, prompt: list[int]) -> int:
        if not self.at_work.acquire(blocking=False):
            return 0
        try:
            return model.runtime.cached(prompt)
        finally:
            self.at_work.release()
