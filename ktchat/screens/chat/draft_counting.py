"""The tokens of what is being typed and what is left of the context, counted in the engine beside the keys.

Nothing is asked while keys come, one thing is asked at a time, and an answer that came too late is not shown.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.common.units import short_count
from engine.protocol import Message
from ktchat.attachments.attachment import Draft

if TYPE_CHECKING:
    from textual.timer import Timer

    from ktchat.screens.chat.activity import Activity
    from ktchat.session.chat import ChatSession
    from ktchat.widgets.chat.chips import Chips
    from ktchat.widgets.chat.prompt import Prompt

PAUSE_SECONDS = 0.15
"""Without a key, before it is counted."""
LARGE_SHARE = 8
"""A draft that takes an eighth of what is left is counted on the screen ..."""
LITTLE_SHARE = 4
"""... and so is every one where less than a quarter of the context is left."""


class DraftCounting:
    """Counts the draft, and the conversation before it once each time that it has changed."""

    def __init__(self, prompt: Prompt, chips: Chips, activity: Activity) -> None:
        self._prompt, self._chips = prompt, chips
        self._activity = activity
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._base: tuple[object, int] = (None, 0)  # what was counted, and its tokens
        self._known: dict[tuple[str, str, str], int] = {}  # tokens of attachments

    def changed(self) -> None:
        """The draft, or what comes before it, has changed. Cheap."""
        if self._timer is not None:
            self._timer.stop()
        if self._task is not None:
            self._task.cancel()
        if not self._prompt.draft:
            self._prompt.show_tokens("")
        else:
            self._timer = self._prompt.set_timer(PAUSE_SECONDS, self._count_soon)

    def _count_soon(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._count(), name="count")

    async def _count(self) -> None:
        chat, prompt = self._activity.context.chat, self._prompt
        text = prompt.text
        if chat is None or chat.loaded is None or not chat.context_size:
            self._show_nothing()
            return
        attached = await self._attached(chat, chat.loaded.path)
        counted = await chat.count([Message("user", text)]) if text.strip() else None
        if (counted is None and text.strip()) or attached is None or chat.loaded is None:
            self._show_nothing()
            return
        tokens = attached + (sum(counted.each) if counted is not None else 0)
        context = chat.loaded.context
        # While a reply is written what is left changes with every token.
        left = None if chat.busy else context - await self._before(chat) - tokens
        if prompt.text == text:
            prompt.show_tokens(*_words(tokens, left, context))

    async def _attached(self, chat: ChatSession, model: str) -> int | None:
        """Tokens of what is attached, each counted once for a model and shown on its chip; None: unknown."""
        total = 0
        for chip in list(self._chips.chips):
            if chip.attachment is None:
                continue
            key = (chip.attachment.digest, chip.attachment.name, model)
            if key not in self._known:
                counted = await chat.count([Message("user", chip.attachment.block)])
                if counted is None:
                    return None
                self._known[key] = sum(counted.each)
            self._chips.counted(chip, self._known[key])
            total += self._known[key]
        return total

    def _show_nothing(self) -> None:
        self._prompt.show_tokens("")
        for chip in self._chips.chips:
            self._chips.counted(chip, None)

    async def _before(self, chat: ChatSession) -> int:
        """Tokens of all that comes before the draft, the template's around it included."""
        from ktchat.session.compaction import unsent

        edited = self._activity.edited
        before = unsent(chat.conversation, Draft("."), edited[0] if edited else None).messages()
        loaded = chat.loaded
        what = (before, chat.offered_think, loaded and (loaded.path, loaded.context))
        if self._base[0] != what:
            counted = await chat.count(before)
            if counted is None or counted.tokens is None:
                return chat.context_used
            self._base = (what, counted.tokens - 1)
        return self._base[1]


def _words(tokens: int, left: int | None, context: int) -> tuple[str, bool]:
    """`312 · 2.1k left`, and whether that is a warning; nothing where there is much room."""
    if left is None:
        return (short_count(tokens) if tokens * LARGE_SHARE > context else ""), False
    if left < 1:
        return f"{short_count(tokens)} · {short_count(1 - left)} too many", True
    if tokens * LARGE_SHARE <= left and left * LITTLE_SHARE >= context:
        return "", False
    return f"{short_count(tokens)} · {short_count(left)} left", left * LARGE_SHARE < context
