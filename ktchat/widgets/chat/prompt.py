"""The prompt: a box of lines that grows with what is typed, with the history of prompts and what goes with a message.

Sending, stopping, the editor and what is completed are messages to the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message

from ktchat.attachments.attachment import MAX_CHARACTERS, PASTE_NAME, Draft, pasted
from ktchat.attachments.pasted_paths import candidates
from ktchat.common.text import sanitise
from ktchat.widgets.chat.chips import Chip, Chips
from ktchat.widgets.chat.prompt_text import PromptText
from ktchat.widgets.chat.suggestions import Suggestions

MAX_IN_BOX = 400_000
"""Characters of a paste that go into the box: with more it would crawl."""
CHIP_LINES = 40
"""A paste of more lines becomes a chip."""


class Prompt(PromptText):
    """The text that the person writes; with `chips` also what goes with it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", show=False),
        Binding("shift+enter,ctrl+j", "new_line", "New line", show=False),
        Binding("up", "previous", "Earlier prompt", show=False),
        Binding("down", "next", "Later prompt", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "start(False)", "Start of the line, then of the text", show=False),
        Binding("end", "end(False)", "End of the line, then of the text", show=False),
        Binding("shift+home", "start(True)", "Select to the start", show=False),
        Binding("shift+end", "end(True)", "Select to the end", show=False),
        Binding("ctrl+a", "select_all", "Select all", show=False),
        Binding("ctrl+u", "clear_draft", "Clear", show=False),
        Binding("ctrl+z", "undo_draft", "Undo", show=False),
        Binding("backspace", "backspace", "Delete", show=False),
        Binding("ctrl+f", "app.nothing", show=False),
        Binding("f6", "app.nothing", show=False),
        Binding("f7", "app.nothing", show=False),
    ]

    @dataclass
    class Sent(Message):
        """The person sent the message."""

        draft: Draft

    @dataclass
    class Waits(Message):
        """It cannot be sent yet: this is still being read."""

        name: str

    @dataclass
    class Page(Message):
        """Scroll the transcript by a page."""

        direction: int

    @dataclass
    class Cut(Message):
        """A paste was too long and was cut."""

        limit: int

    @dataclass
    class PathsPasted(Message):
        """A paste that may be paths stands in the prompt."""

        text: str

    def __init__(
        self,
        placeholder: str = "",
        chips: Chips | None = None,
        suggestions: Suggestions | None = None,
    ) -> None:
        super().__init__(
            soft_wrap=True, show_line_numbers=False, tab_behavior="focus",
            highlight_cursor_line=False, placeholder=placeholder,
        )  # fmt: skip
        self.chips, self.suggestions = chips, suggestions
        self.earlier: list[str] = []
        """Earlier prompts, the newest first."""
        self._recalled = -1  # index in the history of what stands in the box; -1: nothing

    # What stands in it.

    @property
    def draft(self) -> Draft:
        """The text and what goes with it."""
        return Draft(self.text, self.chips.attachments if self.chips is not None else ())

    def put(self, text: str) -> None:
        """Replace the text, with the cursor at its end; undo brings the old one back."""
        self.replace(sanitise(text), (0, 0), self.document.end)
        self.move_cursor(self.document.end)
        self._recalled = -1

    def put_draft(self, draft: Draft) -> None:
        """Replace the text and what goes with it."""
        self.put(draft.text)
        if self.chips is not None:
            self.chips.put(draft.attachments)

    def put_before(self, draft: Draft) -> None:
        """Put a message back, before what was typed since."""
        if draft.text:
            self.put(f"{draft.text}\n{self.text}" if self.text.strip() else draft.text)
        if self.chips is not None:
            self.chips.put_first(draft.attachments)

    def show_tokens(self, words: str, warning: bool = False) -> None:
        """Show what the text takes of the context, in the border below it; empty: nothing."""
        self.border_subtitle = Content.styled(words, "$warning" if warning else "$foreground 70%")

    def remember(self, text: str) -> None:
        """Add what was sent to the history."""
        if text in self.earlier:
            self.earlier.remove(text)
        self.earlier.insert(0, text)

    # Keys.

    def action_send(self) -> None:
        """Send the message, if there is any; the box is empty at once, for what is typed next."""
        reading = self.chips.reading if self.chips is not None else ""
        if reading and not self.text.startswith("/"):
            self.post_message(self.Waits(reading))
        elif draft := self.draft:
            self.post_message(self.Sent(draft))
            self.clear()
            if self.chips is not None and not draft.text.startswith("/"):
                self.chips.forget()

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

    def action_start(self, select: bool) -> None:
        """Go to the start of the line; from there to the start of the text."""
        before = self.cursor_location
        self.action_cursor_line_start(select)
        if self.cursor_location == before:
            self.move_cursor((0, 0), select=select)

    def action_end(self, select: bool) -> None:
        """Go to the end of the line; from there to the end of the text."""
        before = self.cursor_location
        self.action_cursor_line_end(select)
        if self.cursor_location == before:
            self.move_cursor(self.document.end, select=select)

    def action_clear_draft(self) -> None:
        """Take away the text and what goes with it; undo brings both back."""
        had_text = bool(self.text)
        if had_text:
            self.history.checkpoint()
            self.clear()
            self.history.checkpoint()
        if self.chips is not None:
            self.chips.clear(with_text=had_text)

    def action_undo_draft(self) -> None:
        """Undo the last change of the text, or of what goes with it."""
        if self.chips is None or not self.chips.undo(self.text):
            self.undo()

    def action_backspace(self) -> None:
        """Delete to the left; at the very start go to the chips, if there are any."""
        at_start = self.selection.is_empty and self.cursor_location == (0, 0)
        if at_start and self.chips is not None and self.chips.chips:
            self.chips.choose_last()
        else:
            self.action_delete_left()

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
        if self._chooses(event.key):
            event.stop()
            event.prevent_default()
            return
        binding = next(iter(self._bindings.key_to_bindings.get(event.key, ())), None)
        if binding is not None and not binding.action.startswith("app."):
            event.stop()
            event.prevent_default()
            await self.run_action(binding.action)

    def _chooses(self, key: str) -> bool:
        """Whether a key was one of the open list's."""
        listed = self.suggestions
        if listed is None or not listed.is_open:
            return False
        match key:
            case "up" | "down":
                listed.move(-1 if key == "up" else 1)
            case "enter" | "tab":
                listed.take(complete=key == "tab")
            case "escape":
                listed.close()
            case _:
                return False
        return True

    async def _on_paste(self, event: events.Paste) -> None:
        """Insert what was pasted, all its lines, and never send it; a long paste becomes a chip."""
        event.stop()
        event.prevent_default()
        text = sanitise(event.text[: MAX_CHARACTERS + 1])
        self.focus()
        as_chip = self.chips is not None and not self.chips.full
        long = text.strip("\n").count("\n") >= CHIP_LINES or len(text) > MAX_IN_BOX
        if self.chips is not None and as_chip and long:
            self._cut(len(text), MAX_CHARACTERS)
            attachment = pasted(text)
            self.chips.add(Chip(PASTE_NAME, attachment))
            return
        self._cut(len(text), MAX_IN_BOX)
        self.insert_at_cursor(text[:MAX_IN_BOX])
        if as_chip and candidates(text):
            self.post_message(self.PathsPasted(text))

    def insert_at_cursor(self, text: str) -> None:
        """Put text in the place of the selection, with the cursor behind it."""
        result = self._replace_via_keyboard(text, *self.selection)
        if result is not None:
            self.move_cursor(result.end_location)

    def _cut(self, length: int, limit: int) -> None:
        if length > limit:
            self.post_message(self.Cut(limit))
