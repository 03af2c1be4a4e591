"""What is done with the message that is being written: sending it, commands by name, what goes with it, earlier prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import TextArea

from ktchat.screens.chat import slash
from ktchat.screens.chat.turn_actions import TurnActions
from ktchat.widgets.chat.chips import Chips
from ktchat.widgets.chat.prompt import Prompt
from ktchat.widgets.chat.prompt_view import PromptView
from ktchat.widgets.chat.suggestions import Suggestions
from ktchat.widgets.formats import counted

if TYPE_CHECKING:
    from ktchat.screens.chat.attach_flow import AttachFlow
    from ktchat.screens.chat.complete_flow import CompleteFlow
    from ktchat.screens.chat.session_flow import SessionFlow
    from ktchat.screens.chat.slash import Slash

UNDO = ("undo", "screen.undo_draft")


class PromptActions(TurnActions):
    """The part of the chat screen that is about the prompt."""

    attach: AttachFlow
    completing: CompleteFlow
    sessions: SessionFlow
    slash: Slash

    _unknown = ""
    """The message that would have been a command that there is not: sent again, it is a message."""
    _escaped: str | None = None
    """The text that the next Esc clears."""

    # What the prompt says.

    def on_prompt_sent(self, message: Prompt.Sent) -> None:
        draft, edited = message.draft, self.activity.edited
        if edited is None and self._is_command(draft.text):
            return
        if draft.text.startswith("/"):  # then they were not taken out yet
            self.chips.forget()
        if edited is not None and edited[1] == "reply" and self.activity.busy:
            self.status.say("not yet: something is still going on", "warning")
            self.prompt.put_draft(draft)
        elif edited is not None and edited[1] == "reply":
            self.replies.leave_editing()
            self.branches.keep_reply(edited[0], draft.text)
        else:
            self.replies.send(draft)

    def on_prompt_waits(self, message: Prompt.Waits) -> None:
        self.status.say(f"{message.name} is still being read", "warning")

    def on_prompt_cut(self, message: Prompt.Cut) -> None:
        self.status.say(f"the paste was cut to {counted(message.limit, 'character')}", "warning")

    def on_prompt_paths_pasted(self, message: Prompt.PathsPasted) -> None:
        self.attach.offer(message.text)

    def on_text_area_changed(self, message: TextArea.Changed) -> None:
        self.chips.text_now = self.prompt.text
        if self.prompt.text != self._escaped:
            self._escaped = None
        self._draft_changed()
        self.completing.changed()

    def _draft_changed(self) -> None:
        if self.chat is not None and not self.activity.editing and not self.activity.switching:
            self.chat.keep_draft(self.prompt.draft)
        self.count_draft()

    def on_suggestions_toggled(self, message: Suggestions.Toggled) -> None:
        self.refresh_status()

    # What the chips say.

    def on_chips_changed(self, message: Chips.Changed) -> None:
        self._draft_changed()

    def on_chips_opened(self, message: Chips.Opened) -> None:
        shown = self.chips.attachments
        self.attach.show(shown, shown.index(message.attachment), paste=True)

    def on_chips_removed(self, message: Chips.Removed) -> None:
        self.status.say(f"{message.name} is not attached any more", button=UNDO, seconds=12.0)

    def on_chips_as_text(self, message: Chips.AsText) -> None:
        self.prompt.insert_at_cursor(message.text)
        self.prompt.focus()

    def on_chips_left(self, message: Chips.Left) -> None:
        self.prompt.focus()

    def on_chips_typed(self, message: Chips.Typed) -> None:
        self.prompt.focus()
        self.prompt.insert(message.text)

    def on_prompt_view_opened(self, message: PromptView.Opened) -> None:
        self.attach.show(message.attachments, message.at)

    # Actions.

    def action_take_suggestion(self, complete: bool) -> None:
        """A key of the list that was clicked."""
        self.suggestions.take(complete)

    def action_close_suggestions(self) -> None:
        """The same: close it."""
        self.suggestions.close()

    def action_chip_action(self, name: str) -> None:
        """A key of the chips that was clicked."""
        self.app.call_later(self.chips.run_action, name)

    def action_undo_draft(self) -> None:
        """Bring back what was taken out of the message last."""
        self.prompt.action_undo_draft()
        self.status.hush()
        self.prompt.focus()

    def action_history(self) -> None:
        """Search the prompts of all sessions."""
        from ktchat.screens.dialogs.history_dialog import HistoryDialog

        chat = self.chat
        if chat is None:
            return
        store = chat.store

        async def find(words: str) -> list[str]:
            return await store.call(store.recent_prompts, 200, words)

        self.app.push_screen(HistoryDialog(find, self.prompt.text.strip()), self._recall)

    def clear_by_second_escape(self) -> bool:
        """Whether this Esc was about the prompt: the first says what the second does, which clears it."""
        prompt = self.prompt
        if not prompt.has_focus or not (prompt.text or self.chips.chips):
            return False
        if self._escaped == prompt.text:
            self._escaped = None
            prompt.action_clear_draft()
            self.status.say(
                "the prompt is empty · Ctrl+Z brings it back", button=UNDO, seconds=12.0
            )
            return True
        self._escaped = prompt.text
        self.status.say("Esc again clears the prompt")
        return True

    # What commands by name do.

    def type_at(self) -> None:
        """Begin to name a file."""
        self.prompt.focus()
        before = self.prompt.text
        self.prompt.put(f"{before} @" if before and not before[-1].isspace() else f"{before}@")

    def attach_named(self, path: str) -> None:
        """Attach the file at a path that was typed."""
        from ktchat.attachments.pasted_paths import typed_path

        self.attach.attach(typed_path(path))

    def rename_to(self, title: str) -> None:
        """Rename the open session."""
        chat = self.chat
        if chat is not None and chat.conversation.turns:
            self.sessions.rename(chat.conversation.id, title)
        else:
            self.status.say("a session gets its title with its first message")

    # Inside.

    def _is_command(self, text: str) -> bool:
        """Whether a message was a command, and is done, or is refused as one that there is not."""
        again, self._unknown = text == self._unknown, ""
        if self.slash.run(text):
            return True
        name = slash.unknown(text)
        if not name or again:
            return False
        self._unknown = text
        self.prompt.put(text)
        words = f"there is no command /{name} · Enter again sends it as text"
        self.status.say(words, "warning", seconds=30.0)
        return True

    def _recall(self, text: str | None) -> None:
        if text is not None:
            self.prompt.put(text)
        self.prompt.focus()
