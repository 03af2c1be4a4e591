"""What goes with the message that is being written: a chip for each file and each long paste, above the prompt.

Keys: Left and Right choose, Enter opens, Del takes away, t makes a paste text again. What is done goes up as a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from engine.common.units import byte_size, short_count
from ktchat.attachments.attachment import MAX_ATTACHMENTS, Attachment
from ktchat.widgets.formats import counted
from ktchat.widgets.lines import styled

MAX_ROWS = 3
NAME_CELLS = 28


@dataclass(eq=False)
class Chip:
    """One attachment; `attachment` None: it is being read."""

    name: str
    attachment: Attachment | None = None
    tokens: int | None = None
    """Of the block that the model reads; None: not counted (yet)."""

    @property
    def words(self) -> str:
        """What is said behind the name."""
        if self.attachment is None:
            return "reading …"
        facts = facts_of(self.attachment)
        return facts if self.tokens is None else f"{short_count(self.tokens)} tokens"


def facts_of(attachment: Attachment) -> str:
    """Size of an attachment in words: lines of a paste, bytes of a file."""
    if attachment.kind in ("paste", "folder"):
        return counted(attachment.lines, "line")
    return byte_size(attachment.size)


class Chips(Widget, can_focus=True):
    """The chips of one draft; not there where there are none."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"chip", "chosen", "dim", "action"}
    FOCUS_ON_CLICK = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "choose(-1)", "Before", show=False),
        Binding("right", "choose(1)", "Next", show=False),
        Binding("enter,space,o", "open", "Open", show=False),
        Binding("delete,backspace", "remove", "Remove", show=False),
        Binding("t", "as_text", "As text", show=False),
        Binding("ctrl+z", "undo", "Undo", show=False),
        Binding("down", "leave", "To the prompt", show=False),
    ]

    class Changed(Message):
        """Other chips, or one of them was read."""

    @dataclass
    class Opened(Message):
        """Show what is in it."""

        attachment: Attachment

    @dataclass
    class Removed(Message):
        """One was taken away; `Chips.undo` brings it back."""

        name: str

    @dataclass
    class AsText(Message):
        """A paste is to stand in the prompt again."""

        text: str

    class Left(Message):
        """The focus goes back to the prompt."""

    @dataclass
    class Typed(Message):
        """A character that means nothing here: it is for the prompt."""

        text: str

    def __init__(self) -> None:
        super().__init__()
        self.auto_links = False
        self.chips: list[Chip] = []
        self.text_now = ""
        """What stands in the prompt: what is taken away comes back beside the same text."""
        self._at = 0
        self._removed: list[tuple[str | None, list[Chip]]] = []

    def on_mount(self) -> None:
        self.display = bool(self.chips)

    # What is in them.

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Those that were read."""
        return tuple(chip.attachment for chip in self.chips if chip.attachment is not None)

    @property
    def reading(self) -> str:
        """The name of one that is still being read; empty: all are there."""
        return next((chip.name for chip in self.chips if chip.attachment is None), "")

    @property
    def full(self) -> bool:
        """Whether one message takes no more of them."""
        return len(self.chips) >= MAX_ATTACHMENTS

    def put(self, attachments: Iterable[Attachment]) -> None:
        """Show these instead: of what was there before, nothing is brought back any more."""
        known = {chip.attachment: chip for chip in self.chips}
        self._removed.clear()
        self._set([known.get(item) or Chip(item.name, item) for item in attachments])

    def put_first(self, attachments: Iterable[Attachment]) -> None:
        """Show these before those that are there, and those that are still being read."""
        there = {chip.attachment for chip in self.chips}
        first = [Chip(item.name, item) for item in attachments if item not in there]
        if first:
            self._set([*first, *self.chips])

    def take_out(self, attachments: Sequence[Attachment]) -> None:
        """These are on their way."""
        self._set([chip for chip in self.chips if chip.attachment not in attachments])

    def add(self, chip: Chip) -> None:
        """One more."""
        self._set([*self.chips, chip])

    def read(self, chip: Chip, attachment: Attachment) -> None:
        """A chip's file was read."""
        chip.attachment, chip.name = attachment, attachment.name
        self._set(self.chips)

    def drop(self, chip: Chip) -> None:
        """Take one away that cannot be read."""
        for _, removed in self._removed:
            if chip in removed:
                removed.remove(chip)
        self._set([other for other in self.chips if other is not chip])

    def clear(self, with_text: bool) -> None:
        """Take all away; with `with_text` the prompt was cleared too, whose undo brings them back."""
        if self.chips:
            self._removed.append((None if with_text else "", list(self.chips)))
            self._set([])

    def forget(self) -> None:
        """They were sent: nothing is brought back any more."""
        self._removed.clear()
        self._set([])

    def undo(self, text: str) -> bool:
        """Bring back what was taken away last, while the prompt's text is as it was then; whether that was all
        that there was to undo."""
        if not self._removed:
            return False
        then, chips = self._removed[-1]
        if (then or "") != text:
            return False
        self._removed.pop()
        self._set([*chips, *(chip for chip in self.chips if chip not in chips)])
        return then is not None

    def counted(self, chip: Chip, tokens: int | None) -> None:
        """What one takes of the context."""
        if chip.tokens != tokens:
            chip.tokens = tokens
            self.refresh(layout=True)

    def choose_last(self) -> None:
        """Take the focus, with the last one chosen."""
        self._at = len(self.chips) - 1
        self.focus()

    def _set(self, chips: Sequence[Chip]) -> None:
        self.chips = list(chips)
        self._at = max(0, min(self._at, len(self.chips) - 1))
        if self.is_attached:
            self.display = bool(self.chips)
            if not self.chips and self.has_focus:
                self.post_message(self.Left())
            self.post_message(self.Changed())
            self.refresh(layout=True)

    # How they look.

    def render(self) -> Content:
        width = max(8, self.content_size.width)
        rows = self._rows(width)
        first = 0
        if len(rows) > MAX_ROWS:
            chosen = next(i for i, (_, members) in enumerate(rows) if self._at in members)
            first = max(0, min(chosen - MAX_ROWS + 1, len(rows) - MAX_ROWS))
        return Content("\n").join([row for row, _ in rows[first : first + MAX_ROWS]])

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return min(MAX_ROWS, len(self._rows(max(8, width))))

    def _rows(self, width: int) -> list[tuple[Content, set[int]]]:
        rows: list[tuple[Content, set[int]]] = []
        for number, chip in enumerate(self.chips):
            drawn = self._drawn(number, chip, width)
            if rows and rows[-1][0].cell_length + 1 + drawn.cell_length <= width:
                row, members = rows[-1]
                rows[-1] = (row + Content(" ") + drawn, members | {number})
            else:
                rows.append((drawn, {number}))
        return rows

    def _drawn(self, number: int, chip: Chip, width: int) -> Content:
        chosen = self.has_focus and number == self._at
        style = ".chosen" if chosen else ".chip"
        end = styled(f" · {chip.words} ", style) + styled("✕ ", style, ("remove", (number,)))
        room = max(4, min(NAME_CELLS, width - end.cell_length - 2))
        name = Content(chip.name).truncate(room, ellipsis=True).plain
        return styled(f" {name}", style, ("open", (number,))) + end

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.refresh()

    # What can be done.

    def on_key(self, event: events.Key) -> None:
        """Hand what is typed on to the prompt."""
        if event.character and event.is_printable and event.key not in ("t", "o", "space"):
            event.stop()
            self.post_message(self.Typed(event.character))

    def action_choose(self, step: int) -> None:
        """Another one."""
        self._at = max(0, min(self._at + step, len(self.chips) - 1))
        self.refresh()

    def action_open(self, number: int | None = None) -> None:
        """Show what is in one."""
        chip = self._chip(number)
        if chip is not None and chip.attachment is not None:
            self.post_message(self.Opened(chip.attachment))

    def action_remove(self, number: int | None = None) -> None:
        """Take one away."""
        chip = self._chip(number)
        if chip is not None:
            self._removed.append((self.text_now, list(self.chips)))
            self._set([other for other in self.chips if other is not chip])
            self.post_message(self.Removed(chip.name))

    def action_as_text(self) -> None:
        """Make a paste text again."""
        chip = self._chip(None)
        if chip is not None and chip.attachment is not None and chip.attachment.kind == "paste":
            self._set([other for other in self.chips if other is not chip])
            self.post_message(self.AsText(chip.attachment.text))

    def action_undo(self) -> None:
        """Bring back what was taken away last."""
        self.undo(self.text_now)

    def action_leave(self) -> None:
        """Back to the prompt."""
        self.post_message(self.Left())

    def _chip(self, number: int | None) -> Chip | None:
        at = self._at if number is None else number
        return self.chips[at] if 0 <= at < len(self.chips) else None
