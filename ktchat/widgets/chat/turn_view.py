"""A turn's message or its reply in the transcript: which version is shown, and what can be done with it.

What the person asks for goes up as a message that names the turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message

from ktchat.store.conversation import Turn
from ktchat.store.tree import Part, Place
from ktchat.widgets.chat.message import MessageView
from ktchat.widgets.lines import styled

ALONE = Place(1, 1)


class TurnView(MessageView):
    """Base of the views of a turn's two halves; `part` says which of them it is."""

    part: ClassVar[Part]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "regenerate", "Regenerate", show=False),
        Binding("e", "edit", "Edit", show=False),
        Binding("g", "go_on", "Continue", show=False),
        Binding("b", "branch", "Branch", show=False),
        Binding("left", "version(-1)", "Earlier version", show=False),
        Binding("right", "version(1)", "Later version", show=False),
    ]

    @dataclass
    class Regenerate(Message):
        """Write another reply to the turn (or try again)."""

        turn: Turn

    @dataclass
    class Edit(Message):
        """Edit the turn's message, or its reply."""

        turn: Turn
        part: Part

    @dataclass
    class GoOn(Message):
        """Let the turn's reply go on from its end."""

        turn: Turn

    @dataclass
    class Branch(Message):
        """Begin a session with the conversation up to the turn."""

        turn: Turn

    @dataclass
    class Version(Message):
        """Show the version of the turn so many steps further."""

        turn: Turn
        part: Part
        step: int

    def __init__(self, turn: Turn, place: Place = ALONE) -> None:
        super().__init__()
        self.turn = turn
        self.place = place
        self.last = False
        """Whether this is the last turn."""

    @property
    def streaming(self) -> bool:
        """Whether the reply is being written."""
        return False

    def versions(self) -> Content:
        """Which version is shown of how many, `  ‹ 2/3 ›`; nothing where there is one."""
        at, of = self.place
        if of < 2:
            return Content("")
        back = styled("‹", ".action" if at > 1 else ".dim", ("version", (-1,)))
        on = styled("›", ".action" if at < of else ".dim", ("version", (1,)))
        return Content("  ") + back + styled(f" {at}/{of} ", ".dim") + on

    # Actions.

    def action_regenerate(self) -> None:
        """Ask for another reply."""
        if not self.streaming:
            self.post_message(self.Regenerate(self.turn))

    def action_edit(self) -> None:
        """Ask to edit what stands here."""
        if not self.streaming:
            self.post_message(self.Edit(self.turn, self.part))

    def action_go_on(self) -> None:
        """Ask for more of the reply."""
        if not self.streaming:
            self.post_message(self.GoOn(self.turn))

    def action_branch(self) -> None:
        """Ask for a session that begins with all up to here."""
        if not self.streaming:
            self.post_message(self.Branch(self.turn))

    def action_version(self, step: int) -> None:
        """Ask for another version."""
        if self.place.of > 1 and not self.streaming:
            self.post_message(self.Version(self.turn, self.part, step))
