"""A box of text in which a character is what people see as one, and which stays quick when it is full.

`prompt` is what it means; this is how it is moved in, wrapped and drawn.
"""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual.document._document import Location
from textual.expand_tabs import expand_tabs_inline
from textual.strip import Strip
from textual.widgets import TextArea

from ktchat.widgets import graphemes
from ktchat.widgets.chat.wrapping import PromptDocument, PromptNavigator, PromptWrapping


class PromptText(TextArea):
    """A text area with soft wrapping, without line numbers and languages."""

    def _set_document(self, text: str, language: str | None) -> None:
        super()._set_document("", None)
        self.document = PromptDocument(text)
        self.wrapped_document = PromptWrapping(self.document, tab_width=self.indent_width)
        self.navigator = PromptNavigator(self.wrapped_document)
        self.move_cursor((0, 0))
        self._rewrap_and_refresh_virtual_size()

    def find_matching_bracket(self, bracket: str, search_from: Location) -> Location | None:
        """None: a prompt is no program, and the search would read all of it."""
        return None

    def _render_line(self, y: int) -> Strip:
        """A row of the box; only what stands in it is looked at."""
        theme, wrapping = self._theme, self.wrapped_document
        assert isinstance(wrapping, PromptWrapping)
        base = theme.base_style if theme and theme.base_style is not None else self.rich_style
        row = y + self.scroll_offset.y
        if row >= wrapping.height:
            return Strip.blank(self.size.width, base)
        number, section = wrapping._offset_to_line_info[row]
        start, plain = wrapping.section(number, section)
        last = section == len(wrapping.get_offsets(number))
        text = Text(f"{plain} " if last else plain, end="")  # at its end the cursor has room
        self._mark_selection(text, number, start, theme.selection_style if theme else None)
        cursor = self._cursor_in(text, number, start, last)
        if cursor is not None:
            at, end = cursor
            if self._draw_cursor and theme and theme.cursor_style:
                text.stylize(theme.cursor_style, at, end)
            if self.suggestion and (self.has_focus or not self.hide_suggestion_on_blur):
                style = self.get_component_rich_style("text-area--suggestion")
                text = Text.assemble(text[:at], (self.suggestion, style), text[at:], end="")
        if "\t" in plain:
            text = self._with_tabs(text, number, start)
        width = self.scrollable_content_region.size.width
        strip = Strip(text.render(self.app.console), text.cell_len)
        return strip.extend_cell_length(width, base).apply_style(base)

    def _mark_selection(self, text: Text, line: int, start: int, style: Style | None) -> None:
        low, high = sorted(self.selection)
        if style is None or low == high or not low[0] <= line <= high[0]:
            return
        if not self.document[line] and line != self.selection.end[0]:
            text.stylize(style, 0, 1)  # an empty line within is seen to be selected
            return
        end = high[1] - start if line == high[0] else len(self.document[line]) - start
        begin = low[1] - start if line == low[0] else 0
        if end > 0:
            text.stylize(style, max(0, begin), end)

    def _cursor_in(self, text: Text, line: int, start: int, last: bool) -> tuple[int, int] | None:
        """Where in a row the cursor's cluster is, if it is there."""
        row, column = self.selection.end
        at = column - start
        if row != line or at < 0 or (at >= len(text) if not last else at > len(text)):
            return None
        return at, graphemes.after(text.plain, at)

    def _with_tabs(self, text: Text, line: int, start: int) -> Text:
        """Tabs as wide as in the whole line."""
        size, before = self.indent_width, self.document[line][:start]
        at = Text(expand_tabs_inline(before, size)).cell_len
        parts = text.split("\t", include_separator=True)
        done = Text(end="")
        for part in parts:
            if part.plain.endswith("\t"):
                cells = part[:-1].cell_len
                spaces = size - (at + cells) % size
                tab = part[-1:]
                tab.plain = " " * spaces
                part = part[:-1].append_text(tab)
            at += part.cell_len
            done.append_text(part)
        return done
