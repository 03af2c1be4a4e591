"""A table of models: a heading and rows of cells that fit every width, one of them chosen.

Columns that have no room are left out, those of the highest rank first; a long text flows over empty
cells beside it. A click puts the cursor on a row; a second one chooses it, as Enter does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ktchat.widgets.lines import styled, wrap

GAP = 2
MARGIN = 2
"""Cells before the first column, where the mark stands."""
LEAST_FIRST = 18
"""Cells that the first column keeps before other columns are left out."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. The first one takes the room that is left; others are as wide as their cells."""

    title: str
    align: Literal["left", "right"] = "left"
    rank: int = 0
    """Columns of the highest rank are left out first; 0: never."""
    least: int = 0
    """Cells that it takes even when its texts are shorter, so that others stay in their places."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row; its texts are safe to draw."""

    key: str
    cells: tuple[Content, ...]
    group: str = ""
    """A heading that stands above the first row of each group."""
    below: Content | None = None
    """A line or more under the cells."""
    marked: bool = False
    dim: bool = False


class Rows(OptionList):
    """The rows; a click moves the cursor first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
    ]

    async def _on_click(self, event: events.Click) -> None:
        event.prevent_default()  # the list's own way would choose at once
        clicked = event.style.meta.get("option")
        if clicked is None or self.options[clicked].disabled:
            return
        if self.highlighted == clicked:
            self.action_select()
        else:
            self.highlighted = clicked


class ModelTable(Vertical):
    """Rows to choose from."""

    DEFAULT_CSS = """
    ModelTable { height: 1fr; width: 1fr; }
    ModelTable > .heading { height: 1; color: $foreground 70%; padding: 0 1; text-wrap: nowrap; }
    ModelTable > Rows {
        height: 1fr; border: none; padding: 0; background: $background;
        scrollbar-size-vertical: 1; text-wrap: nowrap;
    }
    ModelTable > Rows:focus { border: none; background-tint: $foreground 0%; }
    ModelTable > .heading:ansi { text-style: dim; }
    """

    @dataclass
    class Chosen(Message):
        """Enter, or a second click, on a row."""

        key: str

    @dataclass
    class Moved(Message):
        """The cursor stands on another row; an empty key: on none."""

        key: str

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self._rows: list[Row] = []
        self._words = ""
        self._told: str | None = None
        self.list = Rows(markup=False, compact=True)
        self._heading = Static(classes="heading")

    def compose(self) -> ComposeResult:
        yield self._heading
        yield self.list

    def on_resize(self) -> None:
        self._fill(self.key)

    def show(self, rows: Sequence[Row], words: str = "", at: str | None = None) -> None:
        """Show rows, the cursor on `at` or where it was; `words` stand where there are none."""
        if list(rows) == self._rows and words == self._words and at is None:
            return
        self._rows, self._words = list(rows), words
        self._fill(self.key if at is None else at)

    @property
    def key(self) -> str:
        """The row under the cursor; empty: none."""
        option = self.list.highlighted_option
        return option.id or "" if option is not None else ""

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_id:
            self.post_message(self.Chosen(event.option_id))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._tell()

    def _tell(self) -> None:
        if self.key != self._told:
            self._told = self.key
            self.post_message(self.Moved(self.key))

    def _fill(self, key: str) -> None:
        width = (self.size.width or self.app.size.width) - 1
        heading, lines = layout(self.columns, self._rows, width - 1)
        self._heading.update(heading if self._rows else "")
        at, number = self.list.scroll_y, self.list.highlighted or 0
        options: list[Option] = []
        group = ""
        for row, line in zip(self._rows, lines, strict=True):
            if row.group != group:
                group = row.group
                if options:
                    options.append(Option(Content(" "), disabled=True))
                options.append(Option(styled(f" {group}", "$foreground 70%"), disabled=True))
            options.append(Option(line, id=row.key))
        if not options and self._words:
            rows = wrap(styled(self._words, "$foreground 70%"), max(10, width - 3))
            text = Content("\n").join([Content("  ") + row.content for row in rows])
            options.append(Option(text, disabled=True))
        self.list.set_options(options)
        self._place(key, number)
        self.list.scroll_to(y=at, animate=False)
        if self.list.highlighted is not None:
            self.list.scroll_to_highlight()
        self._tell()

    def _place(self, key: str, number: int) -> None:
        """Put the cursor on the row `key`, or on the first one from row `number` on."""
        keys = [option.id for option in self.list.options]
        able = [at for at, name in enumerate(keys) if name]
        if key in keys:
            self.list.highlighted = keys.index(key)
        elif able:
            self.list.highlighted = min(able, key=lambda at: (abs(at - number), at))


def layout(
    columns: Sequence[Column], rows: Sequence[Row], width: int
) -> tuple[Content, list[Content]]:
    """The heading and the rows at a width, as many columns as fit."""
    wide = [
        max(
            [
                len(c.title),
                c.least,
                *(row.cells[at].cell_length for row in rows if not _spills(c, row, at)),
            ]
        )
        for at, c in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    first = min(wide[0], max(LEAST_FIRST, width // 3)) if wide else 0

    def free() -> int:
        return width - MARGIN - sum(wide[at] + GAP for at in kept[1:])

    while free() < first and (able := [at for at in kept[1:] if columns[at].rank]):
        kept.remove(max(able, key=lambda at: (columns[at].rank, at)))
    wide[0] = max(4, min(wide[0], free()))
    cells = tuple(Content(column.title) for column in columns)
    heading = _line(cells, columns, kept, wide, Content(" " * (MARGIN - 1)), width)
    lines = []
    for row in rows:
        mark = styled("▌ ", "$accent") if row.marked else Content(" " * MARGIN)
        line = _line(row.cells, columns, kept, wide, mark, width)
        line = line.stylize_before("$foreground 70%") if row.dim else line
        if row.below is not None:
            under = wrap(row.below, max(8, width - 2 * MARGIN))
            lead = Content(" " * 2 * MARGIN)
            line = Content("\n").join([line, *(lead + part.content for part in under)])
        lines.append(line)
    return heading, lines


def _line(
    cells: Sequence[Content],
    columns: Sequence[Column],
    kept: Sequence[int],
    wide: Sequence[int],
    lead: Content,
    width: int,
) -> Content:
    line, start = lead, lead.cell_length
    for place, at in enumerate(kept):
        later = kept[place + 1 :]
        room = wide[at]
        for other in later if at and columns[at].align == "left" else ():
            if cells[other]:
                break
            room += GAP + wide[other]  # a long text flows over the empty cells beside it
        if at and columns[at].align == "left" and not any(cells[other] for other in later):
            room = max(room, width - start)
        cell = cells[at].truncate(room, ellipsis=True)
        space = Content(" " * max(0, wide[at] - cell.cell_length))
        if cell:
            line += Content(" " * max(0, start - line.cell_length))
            line += (space + cell) if columns[at].align == "right" else cell
        start += wide[at] + GAP
    return line.rstrip()


def _spills(column: Column, row: Row, at: int) -> bool:
    """Whether a cell may flow over the one beside it, which is empty."""
    between = 0 < at < len(row.cells) - 1
    return between and column.align == "left" and not row.cells[at + 1]
