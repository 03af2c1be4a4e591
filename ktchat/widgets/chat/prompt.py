"""The prompt: a box of lines that grows with what is typed, with the history of prompts.

Sending, stopping and the editor are messages to the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message

from ktchat.common.text import sanitise
from ktchat.widgets.chat.prompt_text import PromptText

MAX_CHARACTERS = 400_000
"""A longer paste is cut: it could not fit a context anyway, and the box would crawl."""


class Prompt(PromptText):
    """The text that the person writes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", show=False),
        Binding("shift+enter,ctrl+j", "new_line", "New line", show=False),
        Binding("up", "previous", "Earlier prompt", show=False),
        Binding("down", "next", "Later prompt", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("ctrl+f", "app.nothing", show=False),
        Binding("f6", "app.nothing", show=False),
        Binding("f7", "app.nothing", show=False),
    ]

    @dataclass
    class Sent(Message):
        """The person sent the text."""

        text: str

    @dataclass
    class Page(Message):
        """Scroll the transcript by a page."""

        direction: int

    @dataclass
    class Cut(Message):
        """A paste was too long and was cut."""

        limit: int

    def __init__(self, placeholder: str = "") -> None:
        super().__init__(
            soft_wrap=True, show_line_numbers=False, tab_behavior="focus",
            highlight_cursor_line=False, placeholder=placeholder,
        )  # fmt: skip
        self.earlier: list[str] = []
        """Earlier prompts, the newest first."""
        self._recalled = -1  # index in the history of what stands in the box; -1: nothing

    def put(self, text: str) -> None:
        """Replace the text, with the cursor at its end; undo brings the old one back."""
        self.replace(sanitise(text), (0, 0), self.document.end)
        self.move_cursor(self.document.end)
        self._recalled = -1

    def put_before(self, text: str) -> None:
        """Put a text back, before what was typed since."""
        if text:
            self.put(f"{text}\n{self.text}" if self.text.strip() else text)

    def show_tokens(self, words: str, warning: bool = False) -> None:
        """Show what the text takes of the context, in the border below it; empty: nothing."""
        self.border_subtitle = Content.styled(words, "$warning" if warning else "$foreground 70%")

    def remember(self, text: str) -> None:
        """Add what was sent to the history."""
        if text in self.earlier:
            self.earlier.remove(text)
        self.earlier.insert(0, text)

    def action_send(self) -> None:
        """Send the text, if there is any; the box is empty at once, for what is typed next."""
        if self.text.strip():
            self.post_message(self.Sent(self.text))
            self.clear()

    def action_new_line(self) -> None:
        """Break the line."""
        self.insert("\n")
        self.scroll_cursor_visible()

    def action_previous(self) -> None:
        """In an empty box, or in a recalled text: the prompt before. Else: one line up."""
        if not self._recall(1):
            self.action_cursor_up()

    def action_next(self) -> None:
        """In a recalled text: the prompt after it. Else: one line down."""
        if not self._recall(-1):
            self.action_cursor_down()

    def action_page(self, direction: int) -> None:
        """Scroll the transcript."""
        self.post_message(self.Page(direction))

    def _recall(self, step: int) -> bool:
        """Replace the text by its neighbour in the history; False when that is not meant."""
        fresh = not self.text
        unchanged = 0 <= self._recalled < len(self.earlier) and (
            self.text == sanitise(self.earlier[self._recalled])
        )
        if not fresh and not unchanged:
            self._recalled = -1
            return False
        at = (-1 if fresh else self._recalled) + step
        if at >= len(self.earlier) or (fresh and step < 0):
            return True
        self.put(self.earlier[at] if at >= 0 else "")
        self._recalled = at
        return True

    async def _on_key(self, event: events.Key) -> None:
        """Do what a key of the box means before the next key is looked at.

        By default a bound key bubbles up to the application first, and characters that were typed
        after an Enter overtake it.
        """
        binding = next(iter(self._bindings.key_to_bindings.get(event.key, ())), None)
        if binding is not None and not binding.action.startswith("app."):
            event.stop()
            event.prevent_default()
            await self.run_action(binding.action)

    async def _on_paste(self, event: events.Paste) -> None:
        """Insert what was pasted, all its lines, and never send it."""
        event.stop()
        event.prevent_default()
        text = sanitise(event.text)
        if len(text) > MAX_CHARACTERS:
            text = text[:MAX_CHARACTERS]
            self.post_message(self.Cut(MAX_CHARACTERS))
        result = self._replace_via_keyboard(text, *self.selection)
        if result is not None:
            self.move_cursor(result.end_location)
        self.focus()
