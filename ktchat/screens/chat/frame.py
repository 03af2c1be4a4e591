"""The frame of the chat screen: its widgets, where they stand, and what they show of the chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from ktchat.attachments.attachment import Draft
from ktchat.common import paths, words
from ktchat.common.text import one_line
from ktchat.screens.chat import keys
from ktchat.screens.chat.activity import Activity
from ktchat.screens.chat.draft_counting import DraftCounting
from ktchat.widgets.bars import Header, KeyBar, Status
from ktchat.widgets.chat.chips import Chip, Chips
from ktchat.widgets.chat.insight_panel import InsightPanel
from ktchat.widgets.chat.message import MessageView
from ktchat.widgets.chat.prompt import Prompt
from ktchat.widgets.chat.session_list import SessionList
from ktchat.widgets.chat.suggestions import Suggestions
from ktchat.widgets.chat.transcript import Transcript
from ktchat.widgets.chat.turn_view import TurnView
from ktchat.widgets.chat.unread_line import UnreadLine
from ktchat.widgets.chat.welcome import Welcome
from ktchat.widgets.too_small import TooSmall, is_too_small

if TYPE_CHECKING:
    from ktchat.context import AppContext
    from ktchat.session.chat import ChatSession

EMPTY = Draft()
WIDE = 100
"""Columns from which the session list stands beside the conversation."""


class Row(Horizontal):
    """Side by side, with nothing of its own to draw."""

    BLANK = True


class Column(Vertical):
    """One below the other, with nothing of its own to draw."""

    BLANK = True


class Frame(Screen[None]):
    """Header, sessions, conversation, prompt and keys."""

    AUTO_FOCUS = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+end", "to_end", "To the end", show=False),
        Binding("ctrl+home", "to_start", "To the start", show=False),
        Binding("ctrl+up", "scroll_by(-3)", "Scroll up", show=False),
        Binding("ctrl+down", "scroll_by(3)", "Scroll down", show=False),
    ]

    def __init__(self, context: AppContext) -> None:
        super().__init__()
        self.context = context
        self.activity = Activity(context)
        self.header = Header()
        self.session_list = SessionList()
        self.transcript = Transcript()
        self.welcome = Welcome()
        self.status = Status()
        self.chips = Chips()
        self.suggestions = Suggestions()
        self.prompt = Prompt("Ask anything", self.chips, self.suggestions)
        self.key_bar = KeyBar(keys.IDLE)
        self.insight_panel = InsightPanel()
        self._draft = DraftCounting(self.prompt, self.chips, self.activity)
        self._overlay = False  # the list is shown above the conversation, on a narrow screen

    def compose(self) -> ComposeResult:
        yield self.header
        with Row(id="main"):
            yield self.session_list
            with Column(id="chat"):
                yield self.welcome
                yield self.transcript
                with Column(id="foot"):
                    yield self.status
                    yield self.suggestions
                    yield self.chips
                    yield self.prompt
            yield self.insight_panel
        yield self.key_bar
        yield TooSmall()

    def on_mount(self) -> None:
        self.transcript.display = False
        self.place_parts()

    def on_resize(self, event: events.Resize) -> None:
        self.place_parts()

    def on_prompt_page(self, message: Prompt.Page) -> None:
        step = max(1, self.transcript.size.height - 2)
        self.transcript.scroll_relative(y=message.direction * step, animate=False)

    def action_to_end(self) -> None:
        """Go to the end of the conversation and stay there."""
        self.transcript.to_end()

    def action_to_start(self) -> None:
        """Go to the start of what is on the screen."""
        self.transcript.scroll_home(animate=False)

    def action_scroll_by(self, rows: int) -> None:
        """Scroll the conversation."""
        self.transcript.scroll_relative(y=rows, animate=False)

    def hide_overlay(self) -> None:
        """Take the session list away where it lies above the conversation."""
        if self._overlay:
            self.place_parts(overlay=False)

    @property
    def is_wide(self) -> bool:
        """Whether the session list stands beside the conversation."""
        return self.app.size.width >= WIDE

    def place_parts(self, overlay: bool | None = None) -> None:
        """Fit the parts to the size of the window; with `overlay`, show or hide the session list
        above the conversation where it has no place beside it."""
        small = is_too_small(self.app.size)
        if small != self.has_class("-small"):
            self.set_class(small, "-small")
            if not small:
                self.call_after_refresh(self.prompt.focus)
        self.set_class(not self.is_wide, "-narrow")
        self._overlay = not self.is_wide and (self._overlay if overlay is None else overlay)
        shown = self.context.settings.settings.session_list if self.is_wide else self._overlay
        self.session_list.display = shown

    # What they show.

    @property
    def chat(self) -> ChatSession | None:
        """The chat; it comes after the first frame."""
        return self.context.chat

    async def show_conversation(self, chat: ChatSession, typed: Draft = EMPTY) -> None:
        """Show the session that is open, with its unsent text and what was `typed` already."""
        folded = self.context.settings.settings.thinking_folded
        self.prompt.put_draft(Draft(chat.draft.text + typed.text, chat.draft.attachments))
        for attachment in typed.attachments:
            self.chips.add(Chip(attachment.name, attachment))
        await self.transcript.show(chat.conversation, unfolded=not folded)
        self.header.show_context(chat.context_used, chat.context_size)
        self.show_thinking(chat)
        self.refresh_status()

    def show_thinking(self, chat: ChatSession) -> None:
        """Show what holds of the model's thinking, where there is a choice."""
        offered = chat.loaded is not None and chat.loaded.think
        self.header.show_thinking(chat.think or "default" if offered else "")
        self._show_keys()

    def show_model(self, chat: ChatSession) -> None:
        """Show the model that is there."""
        model = chat.loaded
        self.show_thinking(chat)
        if model is None:
            self.header.show_model("no model")
            self.welcome.show_model("", False)
            self.header.show_context(0, 0)
            return
        name, quantisation = one_line(model.name, 60), one_line(model.quantisation, 20)
        other = one_line(model.runtime, 20) if model.runtime != "native" else ""
        parts = (quantisation, other, words.place(model))
        self.header.show_model(name, " · ".join(filter(None, parts)))
        self.header.show_context(chat.context_used, chat.context_size)
        self.welcome.show_model(name, paths.is_guide(model.path))

    def show_quiet(self, quiet: bool) -> None:
        """Say that the engine does not answer, or that it does again."""
        self.activity.quiet = quiet
        self.refresh_status()

    def count_draft(self) -> None:
        """What stands in the prompt, or what comes before it, is another one. Cheap."""
        self._draft.changed()

    def refresh_status(self) -> None:
        """What holds now, in words and keys."""
        chat = self.chat
        has_turns = chat is not None and bool(chat.conversation.turns)
        self.transcript.display, self.welcome.display = has_turns, not has_turns
        self.prompt.set_class(self.activity.editing, "editing")
        self.status.stand(self._standing_words())
        self._show_keys()
        self.count_draft()

    def _standing_words(self) -> str:
        chat, activity = self.chat, self.activity
        if activity.quiet:
            return "the engine does not answer · Esc ends it"
        if activity.next_model:
            name = words.model_file(activity.next_model)
            return f"{name} is loaded when this reply ends · Esc leaves the model as it is"
        if activity.making_room:
            return f"{activity.making_room} · Esc leaves all as it was"
        if activity.queued is not None:
            what = "this reply ends" if activity.replying else "the model is there"
            return f"your message is sent when {what} · Esc takes it back"
        if activity.editing:
            reply = activity.edited is not None and activity.edited[1] == "reply"
            what = "the reply · Enter keeps it" if reply else "your message · Enter sends it again"
            return " · ".join(filter(None, [f"editing {what}", activity.price, "Esc leaves it"]))
        if activity.replying and not self.transcript.at_end:
            return "the reply goes on below · Ctrl+End"
        if chat is not None and chat.read_only:
            return "this session is open in another ktchat: it can only be read here"
        if isinstance(self.focused, TurnView) and activity.price and not activity.busy:
            return f"r regenerate: {activity.price}"
        if self.header.nearly_full and not activity.busy and self.size.width < 60:
            return "context nearly full"
        return ""

    def _show_keys(self) -> None:
        if self.suggestions.is_open:
            shown = keys.CHOOSING
        elif isinstance(self.focused, SessionList):
            shown = keys.SESSIONS
        elif isinstance(self.focused, InsightPanel):
            shown = keys.INSIGHT
        elif isinstance(self.focused, TurnView):
            view = self.focused
            shown = keys.of_turn(view.place.of > 1, view.turn.can_go_on)
        elif isinstance(self.focused, Chips):
            shown = keys.CHIPS
        elif isinstance(self.focused, UnreadLine):
            shown = keys.UNREAD
        elif isinstance(self.focused, MessageView):
            shown = keys.MESSAGE
        elif self.activity.editing:
            shown = keys.EDITING
        elif self.activity.thinking:
            shown = keys.THINKING
        else:
            shown = keys.STREAMING if self.activity.busy else keys.IDLE
        if keys.HELP in shown and self.header.thinking:
            shown = keys.with_switch(shown)
        self.key_bar.show(shown)
