"""The model's thinking on the chat screen: more or less of it, and going on with the answer at once.

What can be chosen is what the model's template offers; the choice is the open session's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.protocol import Think
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame

Command = tuple[str, str, Callable[[], None]]
"""Title, help, and what it does."""


class ThinkingFlow:
    """What of thinking is offered and chosen."""

    def __init__(self, frame: Frame, activity: Activity) -> None:
        self._frame = frame
        self._activity = activity
        self._context = activity.context

    @property
    def choices(self) -> tuple[Think, ...]:
        """What the model offers; empty: nothing, or there is no model."""
        chat = self._context.chat
        return chat.loaded.think if chat is not None and chat.loaded is not None else ()

    def offers(self, action: str) -> bool:
        """Whether an action of the screen does something now; those that are not of thinking do."""
        if action == "answer_now":
            return self._activity.thinking
        return action != "cycle_thinking" or bool(self.choices)

    def commands(self) -> Iterator[Command]:
        """Every choice for the command palette."""
        chat = self._context.chat
        for think in self.choices:
            now = chat is not None and chat.think == think
            words = (
                "In this session, as now" if now else "In this session, from the next message on"
            )
            yield f"Thinking: {think}", words, partial(self.choose, think)

    def cycle(self) -> None:
        """Choose what comes next."""
        chat, choices = self._context.chat, self.choices
        if chat is None or not choices:
            self._frame.status.say("the model's template offers no choice of thinking")
            return
        at = choices.index(chat.think) if chat.think in choices else -1
        self.choose(choices[(at + 1) % len(choices)])

    def choose(self, think: Think) -> None:
        """Choose for this session."""
        chat = self._context.chat
        if chat is None or think not in self.choices:
            return
        chat.choose_thinking(think)
        self._frame.show_thinking(chat)
        since = ", from the next message on" if self._activity.replying else ""
        self._frame.status.say(f"thinking: {think}{since}")

    def names(self) -> tuple[str, ...]:
        """What can be chosen, by name."""
        return self.choices

    def choose_named(self, name: str) -> None:
        """Choose for this session what is called so."""
        for think in self.choices:
            if think == name.lower():
                self.choose(think)
                return
        offered = ", ".join(self.choices) or "no choice of thinking"
        self._frame.status.say(f"the model's template offers {offered}", "warning")

    def answer_now(self) -> None:
        """End the thinking that goes on."""
        chat = self._context.chat
        if chat is None or not self._activity.thinking:
            self._frame.status.say("no reply is thinking")
        elif chat.loaded is not None and chat.loaded.origin:
            self._frame.status.say(
                "a server cannot be told to end the thinking · Esc stops the reply"
            )
        else:
            chat.answer_now()

    def say_sampling(self) -> None:
        """Say which sampling values hold, and where each comes from."""
        chat = self._context.chat
        if chat is not None:
            self._frame.status.say(chat.layers.words, seconds=30.0)
