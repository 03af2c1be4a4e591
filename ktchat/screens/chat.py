"""The chat screen: header, sessions, conversation, prompt and keys.

Knows which widgets there are and which action does what; the order of things is in `replies`,
`session_flow` and `model_flow`. What opens above it is imported when it opens: the first frame
does not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import TextArea

from engine.errors import KtchatError
from ktchat.screens import keys
from ktchat.screens.model_flow import ModelFlow
from ktchat.screens.replies import Replies
from ktchat.screens.session_flow import SessionFlow
from ktchat.settings import SettingsFile
from ktchat.widgets.bars import Header, KeyBar, Status
from ktchat.widgets.formats import counted
from ktchat.widgets.message import MessageView
from ktchat.widgets.prompt import Prompt
from ktchat.widgets.session_list import SessionList
from ktchat.widgets.small import TooSmall
from ktchat.widgets.transcript import Transcript
from ktchat.widgets.turn import PromptView, ReplyView
from ktchat.widgets.welcome import Welcome

if TYPE_CHECKING:
    from ktchat.app import KtchatApp
    from ktchat.chat import ChatSession

WIDE = 100
"""Columns from which the session list stands beside the conversation."""

LEAST = (36, 9)
"""Columns and rows below which only a line says that the window is too small."""


class Row(Horizontal):
    """Side by side, with nothing of its own to draw."""

    BLANK = True


class Column(Vertical):
    """One below the other, with nothing of its own to draw."""

    BLANK = True


class ChatScreen(Screen[None]):
    """The screen of the program."""

    AUTO_FOCUS = "Prompt"
    app: KtchatApp
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.BINDINGS,
        Binding("ctrl+end", "to_end", "To the end", show=False),
        Binding("ctrl+home", "to_start", "To the start", show=False),
        Binding("ctrl+up", "scroll_by(-3)", "Scroll up", show=False),
        Binding("ctrl+down", "scroll_by(3)", "Scroll down", show=False),
    ]

    def __init__(self, settings: SettingsFile) -> None:
        super().__init__()
        self.settings = settings
        self.chat: ChatSession | None = None
        """Comes after the first frame."""
        self.header = Header()
        self.session_list = SessionList()
        self.transcript = Transcript()
        self.welcome = Welcome()
        self.status = Status()
        self.prompt = Prompt("Ask anything")
        self.key_bar = KeyBar(keys.IDLE)
        self.replies = Replies(self)
        self.sessions = SessionFlow(self)
        self.models = ModelFlow(self)
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
                    yield self.prompt
        yield self.key_bar
        yield TooSmall()

    def on_mount(self) -> None:
        self.transcript.display = False
        self._arrange()

    async def show_conversation(self, chat: ChatSession, typed: str = "") -> None:
        """Show the session that is open, with its unsent text and what was `typed` already."""
        settings = self.settings.settings
        turns = chat.conversation.turns
        self.prompt.put(chat.draft + typed)
        await self.transcript.show(turns, unfolded=not settings.thinking_folded)
        self.header.show_context(chat.context_used, chat.context_size)
        self.refresh_status()

    def refresh_status(self) -> None:
        """What holds now, in words and keys."""
        chat, replies = self.chat, self.replies
        has_turns = chat is not None and bool(chat.conversation.turns)
        self.transcript.display, self.welcome.display = has_turns, not has_turns
        self.prompt.set_class(replies.editing, "editing")
        busy = chat is not None and (chat.busy or bool(self.models.loading))
        standing = ""
        if replies.waiting:
            what = "this reply ends" if chat is not None and chat.busy else "the model is there"
            standing = f"your message is sent when {what} · Esc takes it back"
        elif replies.editing:
            standing = (
                "editing your last message · Enter replaces the turn · Esc leaves it as it was"
            )
        elif chat is not None and chat.read_only:
            standing = "this session is open in another ktchat: it can only be read here"
        elif self.header.nearly_full and not busy and self.size.width < 60:
            standing = "context nearly full"
        self.status.stand(standing)
        self._show_keys(busy)

    def _show_keys(self, busy: bool) -> None:
        if isinstance(self.focused, SessionList):
            shown = keys.SESSIONS
        elif isinstance(self.focused, MessageView):
            shown = keys.MESSAGE
        else:
            shown = keys.EDITING if self.replies.editing else keys.STREAMING if busy else keys.IDLE
        self.key_bar.show(shown)

    def remember(self, **changes: Any) -> None:
        """Change settings; ones that cannot be saved hold until the program ends."""
        try:
            self.settings.update(**changes)
        except KtchatError as error:
            self.status.say(str(error), "warning")

    # What the widgets say.

    def on_prompt_sent(self, message: Prompt.Sent) -> None:
        self.replies.send(message.text)

    def on_welcome_asked(self, message: Welcome.Asked) -> None:
        self.replies.send(message.text)

    def on_prompt_page(self, message: Prompt.Page) -> None:
        step = max(1, self.transcript.size.height - 2)
        self.transcript.scroll_relative(y=message.direction * step, animate=False)

    def on_prompt_cut(self, message: Prompt.Cut) -> None:
        self.status.say(f"the paste was cut to {counted(message.limit, 'character')}", "warning")

    def on_text_area_changed(self, message: TextArea.Changed) -> None:
        if self.chat is not None and not self.replies.editing and not self.sessions.switching:
            self.chat.keep_draft(self.prompt.text)

    async def on_message_view_copy(self, message: MessageView.Copy) -> None:
        await self._copy(message.text, message.name)

    def on_message_view_open_link(self, message: MessageView.OpenLink) -> None:
        from ktchat.screens.dialogs import LinkDialog

        self.app.push_screen(
            LinkDialog(message.url), lambda answer: self._link(message.url, answer)
        )

    def on_prompt_view_edit(self, message: PromptView.Edit) -> None:
        self.replies.edit()

    def on_reply_view_regenerate(self, message: ReplyView.Regenerate) -> None:
        self.replies.regenerate()

    def on_transcript_left(self, message: Transcript.Left) -> None:
        self.prompt.focus()

    def on_session_list_opened(self, message: SessionList.Opened) -> None:
        self._hide_overlay()
        self.sessions.open(message.session)

    def on_session_list_deleted(self, message: SessionList.Deleted) -> None:
        self.sessions.delete(message.session)

    def on_session_list_undone(self, message: SessionList.Undone) -> None:
        self.sessions.undo_delete()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.refresh_status()

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    # Actions.

    def action_stop(self) -> None:
        """Esc: stop what goes on; else back to the prompt."""
        if self.replies.stop() or self.models.stop():
            return
        self._hide_overlay()
        self.screen.clear_selection()
        self.prompt.focus()

    def action_send(self) -> None:
        """Send the prompt."""
        self.prompt.action_send()

    def action_new_line(self) -> None:
        """Break a line of the prompt."""
        self.prompt.action_new_line()
        self.prompt.focus()

    def action_editor(self) -> None:
        """Write the prompt in the person's editor."""
        from ktchat.screens import editor

        try:
            self.prompt.put(editor.edit(self.app, self.prompt.text))
        except KtchatError as error:
            self.status.say(str(error), "error")
        self.prompt.focus()

    def action_new_session(self) -> None:
        """Begin a session."""
        self._hide_overlay()
        self.sessions.new()

    def action_toggle_sessions(self) -> None:
        """Show or hide the session list; on a narrow screen above the conversation."""
        if self.size.width >= WIDE:
            shown = not self.session_list.display
            self.remember(session_list=shown)
            self._overlay = False
        else:
            self._overlay = shown = not self._overlay
        self._arrange()
        (self.session_list if shown else self.prompt).focus()

    def action_list_action(self, name: str) -> None:
        """A key of the session list that was clicked."""
        if name == "open":
            self.session_list.action_select()
        else:
            self.session_list.action_delete()

    def action_message_action(self, name: str) -> None:
        """A key of a message that was clicked."""
        if isinstance(self.focused, MessageView):
            action = getattr(self.focused, f"action_{name}", None)
            if action is not None:
                action()

    def action_rename(self) -> None:
        """Rename the session under the cursor, or the open one."""
        chat = self.chat
        chosen = self.session_list.chosen if self.session_list.has_focus else None
        if chosen is not None:
            self._ask_title(chosen.id, chosen.shown_title)
        elif chat is not None and chat.conversation.turns:
            self._ask_title(chat.conversation.id, chat.conversation.shown_title)
        else:
            self.status.say("a session gets its title with its first message")

    def action_undo_delete(self) -> None:
        """Bring back the session deleted last."""
        self.sessions.undo_delete()

    def action_regenerate(self) -> None:
        """Regenerate the last reply."""
        self.replies.regenerate()

    def action_edit(self) -> None:
        """Edit the last message."""
        self.replies.edit()

    async def action_copy_reply(self) -> None:
        """Copy the last reply."""
        reply = self.transcript.last_reply()
        if reply is None or not reply.turn.reply:
            self.status.say("there is no reply to copy")
        else:
            await self._copy(reply.turn.reply, "reply")

    async def action_copy_code(self) -> None:
        """Copy the last code block."""
        code = self.transcript.last_code()
        if code is None:
            self.status.say("there is no code block to copy")
        else:
            await self._copy(code, "code block")

    def action_fold_thinking(self) -> None:
        """Fold or unfold all thinking."""
        folded = not self.settings.settings.thinking_folded
        self.remember(thinking_folded=folded)
        self.transcript.fold_thinking(not folded)
        self.status.say("thinking is folded" if folded else "thinking is unfolded")

    def action_models(self) -> None:
        """Choose another model."""
        from ktchat.screens.models import ModelScreen

        chat = self.chat
        current = chat.loaded.path if chat is not None and chat.loaded else ""
        recent = self.settings.settings.recent_models
        self.app.push_screen(ModelScreen(current, recent), self._model_chosen)

    def action_help(self) -> None:
        """All keys."""
        from ktchat.screens.dialogs import HelpDialog

        self.app.push_screen(HelpDialog())

    def action_to_end(self) -> None:
        """Go to the end of the conversation and stay there."""
        self.transcript.to_end()

    def action_to_start(self) -> None:
        """Go to the start of what is on the screen."""
        self.transcript.scroll_home(animate=False)

    def action_scroll_by(self, rows: int) -> None:
        """Scroll the conversation."""
        self.transcript.scroll_relative(y=rows, animate=False)

    # Inside.

    def _model_chosen(self, path: str | None) -> None:
        if path is not None:
            self.models.load(path)

    def _ask_title(self, session: str, title: str) -> None:
        from ktchat.screens.dialogs import RenameDialog

        def answered(answer: str | None) -> None:
            if answer is not None:
                self.sessions.rename(session, answer)

        self.app.push_screen(RenameDialog(title), answered)

    async def _copy(self, text: str, name: str) -> None:
        from ktchat.screens.clipboard import copy

        await copy(self.app, text)
        self.status.say(f"copied the {name}: {counted(len(text), 'character')}")

    def _link(self, url: str, answer: str | None) -> None:
        if answer == "copy":
            self.run_worker(self._copy(url, "link"), exit_on_error=False)
        elif answer == "open":
            self.app.open_url(url)
            self.status.say("the link was given to the browser")

    def _hide_overlay(self) -> None:
        if self._overlay:
            self._overlay = False
            self._arrange()

    def _arrange(self) -> None:
        """Fit the parts to the size of the window."""
        width, height = self.app.size
        small = width < LEAST[0] or height < LEAST[1]
        if small != self.has_class("-small"):
            self.set_class(small, "-small")
            if not small:
                self.call_after_refresh(self.prompt.focus)
        wide = width >= WIDE
        self.set_class(not wide, "-narrow")
        if wide:
            self._overlay = False
        shown = self.settings.settings.session_list if wide else self._overlay
        self.session_list.display = shown
