"""What is done with single turns: by the keys of a focused message, its words, or for the last turn."""

from __future__ import annotations

from ktchat.screens.chat.branch_flow import BranchFlow
from ktchat.screens.chat.frame import Frame
from ktchat.screens.chat.replies import Replies
from ktchat.store.conversation import Turn
from ktchat.store.tree import Part
from ktchat.widgets.chat.message import MessageView
from ktchat.widgets.chat.turn_view import TurnView


class TurnActions(Frame):
    """The part of the chat screen that is about turns."""

    replies: Replies
    branches: BranchFlow

    def on_turn_view_regenerate(self, message: TurnView.Regenerate) -> None:
        self.replies.regenerate(message.turn)

    def on_turn_view_edit(self, message: TurnView.Edit) -> None:
        self._edit(message.turn, message.part)

    def on_turn_view_go_on(self, message: TurnView.GoOn) -> None:
        self.replies.go_on(message.turn)

    def on_turn_view_branch(self, message: TurnView.Branch) -> None:
        self.branches.branch(message.turn)

    def on_turn_view_version(self, message: TurnView.Version) -> None:
        self.branches.walk(message.turn, message.part, message.step)

    def action_message_action(self, name: str) -> None:
        """A key of a message that was clicked: `edit`, or `version(1)`."""
        if isinstance(self.focused, MessageView):
            self.app.call_later(self.focused.run_action, name)

    def action_regenerate(self) -> None:
        """Regenerate the reply to the turn that has the focus, else the last."""
        self.replies.regenerate(self._focused_turn)

    def action_edit(self) -> None:
        """Edit the message of the turn that has the focus, else the last."""
        self._edit(self._focused_turn, "prompt")

    def action_go_on(self) -> None:
        """Continue the reply that has the focus, else the last."""
        self.replies.go_on(self._focused_turn)

    def action_branch(self) -> None:
        """A new session with all up to the turn that has the focus, else the last."""
        self.branches.branch(self._focused_turn)

    def action_version(self, step: int) -> None:
        """Another version of the turn that has the focus, else of the last one that has any."""
        if isinstance(self.focused, TurnView) and self.focused.place.of > 1:
            self.focused.action_version(step)
        else:
            self.branches.walk_last(step)

    def price_focused(self) -> None:
        """Find out what is read again when the focused turn is regenerated."""
        if not self.activity.editing:
            self.branches.price(self._focused_turn, None)

    @property
    def _focused_turn(self) -> Turn | None:
        return self.focused.turn if isinstance(self.focused, TurnView) else None

    def _edit(self, turn: Turn | None, part: Part) -> None:
        self.replies.edit(turn, part)
        if self.activity.edited is not None:
            self.branches.price(*self.activity.edited)
