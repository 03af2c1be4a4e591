"""What is attached, to read: the text exactly as the model gets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static, TextArea

from engine.common.units import byte_size, count
from ktchat.attachments.attachment import Attachment
from ktchat.screens.dialogs.dialogs import Dialog
from ktchat.widgets.formats import counted


class AttachmentDialog(Dialog):
    """Dismissed with the digest of a paste that is to be text again, or with None."""

    AUTO_FOCUS = "TextArea"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "Leave", show=False),
        Binding("left", "step(-1)", "Before", show=False, priority=True),
        Binding("right", "step(1)", "Next", show=False, priority=True),
        Binding("t", "as_text", "As text", show=False),
    ]

    def __init__(self, attachments: Sequence[Attachment], at: int, paste: bool = False) -> None:
        """`paste`: a paste among them can be made text again."""
        super().__init__()
        self._attachments, self._at, self._paste = attachments, at, paste

    def compose(self) -> ComposeResult:
        with Vertical(classes="box attachment"):
            yield Static(id="attachment-title", classes="title")
            yield TextArea(read_only=True, soft_wrap=True, show_line_numbers=False)
            yield Static(id="attachment-facts", classes="hint")
            yield Static(id="attachment-keys", classes="hint")

    def on_mount(self) -> None:
        self._show()

    def action_step(self, step: int) -> None:
        """Another attachment of the same message."""
        at = self._at + step
        if 0 <= at < len(self._attachments):
            self._at = at
            self._show()

    def action_as_text(self) -> None:
        """Put a paste into the prompt."""
        item = self._attachments[self._at]
        if self._paste and item.kind == "paste":
            self.dismiss(item.digest)

    def _show(self) -> None:
        item = self._attachments[self._at]
        of = len(self._attachments)
        place = f" · {self._at + 1} of {of}" if of > 1 else ""
        self.query_one("#attachment-title", Static).update(Content(f"{item.name}{place}"))
        self.query_one(TextArea).load_text(item.text)
        facts = [counted(item.lines, "line"), f"{count(len(item.text))} characters"]
        facts += [byte_size(item.size)] if item.kind in ("text", "pdf") else []
        facts += [f"SHA-256 {item.sha256[:12]}…"] if item.sha256 else []
        self.query_one("#attachment-facts", Static).update(Content(" · ".join(facts)))
        can = ["t makes it text in the prompt"] if self._paste and item.kind == "paste" else []
        more = ["← → the others"] if of > 1 else []
        keys = " · ".join(["Up Down read", *more, *can, "Esc back"])
        self.query_one("#attachment-keys", Static).update(Content(keys))
