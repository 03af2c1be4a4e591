"""The chat screen: what each message of a widget and each key does.

What opens above it is imported when it opens: the first frame does not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import BindingType

from engine.errors import KtchatError
from ktchat.attachments.attachment import Draft
from ktchat.screens.chat import keys
from ktchat.screens.chat.attach_flow import AttachFlow
from ktchat.screens.chat.branch_flow import BranchFlow
from ktchat.screens.chat.compact_flow import CompactFlow
from ktchat.screens.chat.complete_flow import CompleteFlow
from ktchat.screens.chat.download_flow import DownloadFlow
from ktchat.screens.chat.file_flow import FileFlow
from ktchat.screens.chat.insight_flow import InsightFlow
from ktchat.screens.chat.model_flow import ModelFlow
from ktchat.screens.chat.overflow_flow import OverflowFlow
from ktchat.screens.chat.prompt_actions import PromptActions
from ktchat.screens.chat.replies import Replies
from ktchat.screens.chat.search_flow import SearchFlow
from ktchat.screens.chat.session_flow import SessionFlow
from ktchat.screens.chat.session_listing import SessionListing
from ktchat.screens.chat.settings_flow import SettingsFlow
from ktchat.screens.chat.slash import Slash
from ktchat.screens.chat.system_flow import SystemFlow
from ktchat.screens.chat.thinking_flow import ThinkingFlow
from ktchat.widgets.chat.message import MessageView
from ktchat.widgets.chat.session_list import SessionList
from ktchat.widgets.chat.transcript import Transcript
from ktchat.widgets.chat.unread_line import UnreadLine
from ktchat.widgets.chat.welcome import Welcome
from ktchat.widgets.formats import counted

if TYPE_CHECKING:
    from ktchat.context import AppContext


class ChatScreen(PromptActions):
    """The screen of the program."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.BINDINGS]

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        self.listing = SessionListing(self, context)
        self.replies = Replies(self, self.activity, self.listing)
        self.sessions = SessionFlow(self, self.activity, self.listing, self.replies)
        self.branches = BranchFlow(self, self.activity, self.listing, self.sessions)
        self.searches = SearchFlow(self, context, self.sessions)
        self.files = FileFlow(self, context, self.listing)
        self.models = ModelFlow(self, self.activity)
        self.overflow = OverflowFlow(self, self.activity, self.models, self.sessions)
        self.compacting = CompactFlow(self, self.activity, self.overflow)
        self.replies.overflow, self.overflow.send = self.overflow, self.replies.send
        self.thinking = ThinkingFlow(self, self.activity)
        self.insight = InsightFlow(self)
        self.replies.insight = self.insight.take
        self.system = SystemFlow(self, self.activity)
        self.attach = AttachFlow(self, self.activity, self.models)
        self.slash = Slash(self)
        self.completing = CompleteFlow(self, self.activity, self.attach, self.slash)
        self.downloads = DownloadFlow(self, self.activity, self.models)
        self.settings = SettingsFlow(self, self.activity, self.models)

    def place_parts(self, overlay: bool | None = None) -> None:
        super().place_parts(overlay)
        self.insight.place()

    def refresh_status(self) -> None:
        super().refresh_status()
        self.insight.show()

    # What the widgets say.

    def on_welcome_asked(self, message: Welcome.Asked) -> None:
        self.replies.send(Draft(message.text))

    async def on_message_view_copy(self, message: MessageView.Copy) -> None:
        await self._copy(message.text, message.name)

    def on_message_view_open_link(self, message: MessageView.OpenLink) -> None:
        from ktchat.screens.dialogs.dialogs import LinkDialog

        self.app.push_screen(
            LinkDialog(message.url), lambda answer: self._link(message.url, answer)
        )

    def on_message_view_typed(self, message: MessageView.Typed) -> None:
        self.prompt.focus()
        self.prompt.insert(message.text)

    def on_transcript_followed(self, message: Transcript.Followed) -> None:
        self.refresh_status()

    def on_unread_line_bring_back(self, message: UnreadLine.BringBack) -> None:
        self.overflow.bring_back()

    def on_transcript_left(self, message: Transcript.Left) -> None:
        self.prompt.focus()

    def on_session_list_opened(self, message: SessionList.Opened) -> None:
        self.hide_overlay()
        self.sessions.open(message.session)

    def on_session_list_deleted(self, message: SessionList.Deleted) -> None:
        self.sessions.delete(message.session)

    def on_session_list_undone(self, message: SessionList.Undone) -> None:
        self.sessions.undo_delete()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.price_focused()
        self.refresh_status()

    # Actions.

    def action_toggle_insight(self) -> None:
        """Show or hide how replies are computed."""
        self.insight.toggle()

    def action_stop(self) -> None:
        """Esc: close what lies above the conversation; else stop what goes on; else back to the prompt."""
        if self.insight.close(only_cover=True):
            return
        if self.models.take_back() or self.replies.stop() or self.models.stop():
            return
        selected = bool(self.screen.selections)
        if self.focused is self.prompt and not self._overlay and self.insight.close():
            return
        self.hide_overlay()
        self.screen.clear_selection()
        if selected or not self.clear_by_second_escape():
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
        from ktchat.screens.chat import editor

        try:
            self.prompt.put(editor.edit(self.app, self.prompt.text))
        except KtchatError as error:
            self.status.say(str(error), "error")
        self.prompt.focus()

    def action_new_session(self) -> None:
        """Begin a session."""
        self.hide_overlay()
        self.sessions.new()

    def action_toggle_sessions(self) -> None:
        """Show or hide the session list; on a narrow screen above the conversation."""
        shown = not self.session_list.display
        if self.is_wide:
            self.context.remember(session_list=shown)
        self.place_parts(overlay=shown)
        (self.session_list if shown else self.prompt).focus()

    def action_list_action(self, name: str) -> None:
        """A key of the session list that was clicked."""
        if name == "open":
            self.session_list.action_select()
        else:
            self.session_list.action_delete()

    def action_search_here(self) -> None:
        """Search in this conversation."""
        self.searches.open(here=True)

    def action_search_all(self) -> None:
        """Search in all sessions."""
        self.searches.open(here=False)

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
        folded = not self.context.settings.settings.thinking_folded
        self.context.remember(thinking_folded=folded)
        self.transcript.fold_thinking(not folded)
        self.status.say("thinking is folded" if folded else "thinking is unfolded")

    def action_cycle_thinking(self) -> None:
        """Think or not, more or less."""
        self.thinking.cycle()

    def action_answer_now(self) -> None:
        """End the thinking of the reply."""
        self.thinking.answer_now()

    def action_models(self) -> None:
        """Choose another model."""
        from ktchat.screens.models.manager import ModelManager

        chat = self.chat
        current = chat.loaded.path if chat is not None and chat.loaded else ""
        self.app.push_screen(ModelManager(self.context, current), self._model_chosen)

    def action_bring_back(self) -> None:
        """Have read again what is no longer read."""
        self.overflow.bring_back()

    def action_load_on_cpu(self) -> None:
        """Load the model on the CPU, until the program ends."""
        self.models.load_on_cpu()

    def action_load_again(self) -> None:
        """Load the model as the settings say now."""
        self.models.load_again()

    def action_settings(self, at: str = "") -> None:
        """The settings, at one that is to be changed."""
        self.settings.open(at)

    def action_help(self) -> None:
        """All keys."""
        from ktchat.screens.dialogs.dialogs import HelpDialog

        rows = [(key.shown, key.help) for key in keys.KEYS]
        self.app.push_screen(HelpDialog([*rows, ("", ""), *self.slash.helped()]))

    # Inside.

    def _model_chosen(self, path: str | None) -> None:
        if path is not None:
            self.models.load(path)

    def _ask_title(self, session: str, title: str) -> None:
        from ktchat.screens.dialogs.dialogs import RenameDialog

        def answered(answer: str | None) -> None:
            if answer is not None:
                self.sessions.rename(session, answer)

        self.app.push_screen(RenameDialog(title), answered)

    async def _copy(self, text: str, name: str) -> None:
        from ktchat.screens.chat.clipboard import copy

        await copy(self.app, text)
        self.status.say(f"copied the {name}: {counted(len(text), 'character')}")

    def _link(self, url: str, answer: str | None) -> None:
        if answer == "copy":
            self.run_worker(self._copy(url, "link"), exit_on_error=False)
        elif answer == "open":
            self.app.open_url(url)
            self.status.say("the link was given to the browser")
