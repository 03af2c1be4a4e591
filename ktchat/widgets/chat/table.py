"""Markdown tables as rows of cells, fitted to a width."""

from __future__ import annotations

from itertools import zip_longest

from textual.content import Content

from ktchat.widgets.lines import Line, styled, wrap

_GAP = 2
_NARROWEST = 4


def natural_widths(rows: list[list[Content]]) -> list[int]:
    """Cells that each column takes where nothing wraps."""
    columns = max((len(row) for row in rows), default=0)
    return [
        max(_NARROWEST, *(max(map(_cells, row[i].split(allow_blank=True)), default=0)
                          for row in rows if i < len(row)))
        for i in range(columns)
    ]  # fmt: skip


def table(
    rows: list[list[Content]], align: list[str], width: int, natural: list[int] | None = None
) -> list[Line]:
    """A header row, a rule and the other rows; cells wrap where the columns do not fit.

    `natural`: cells that the columns would like to have, where that is not for these rows to say.
    """
    natural = natural or natural_widths(rows)
    columns = len(natural)
    if not columns:
        return []
    room = width - _GAP * (columns - 1)
    if room < _NARROWEST * columns:
        return _as_lists(rows, width)
    widths = _fit(natural, room)
    lines: list[Line] = []
    for number, row in enumerate(rows):
        cells = [content.stylize_before(".strong") for content in row] if number == 0 else row
        lines.extend(_row(cells, widths, align))
        if number == 0:
            rule = "  ".join("─" * cells_wide for cells_wide in widths)
            lines.append(Line(styled(rule, ".dim"), gutter=len(rule)))
    return lines


def _cells(content: Content) -> int:
    return content.cell_length


def _fit(natural: list[int], room: int) -> list[int]:
    """Widths that fit: narrow columns keep what they need, wide ones share the rest evenly."""
    widths = list(natural)
    open_columns = sorted(range(len(widths)), key=lambda i: natural[i])
    left = room
    while open_columns:
        share = left // len(open_columns)
        column = open_columns.pop(0)
        widths[column] = min(natural[column], max(_NARROWEST, share))
        left -= widths[column]
    return widths


def _row(cells: list[Content], widths: list[int], align: list[str]) -> list[Line]:
    wrapped = [wrap(cell, w) for cell, w in zip(cells, widths, strict=False)]
    lines: list[Line] = []
    for parts in zip_longest(*wrapped):
        content = Content("")
        for column, part in enumerate(parts):
            text = part.content if part else Content("")
            how = align[column] if column < len(align) else ""
            content += _aligned(text, widths[column], how)
            if column < len(parts) - 1:
                content += Content(" " * _GAP)
        lines.append(Line(content.rstrip()))
    return lines


def _aligned(content: Content, width: int, how: str) -> Content:
    spare = max(0, width - content.cell_length)
    left = {"right": spare, "center": spare // 2}.get(how, 0)
    return Content(" " * left) + content + Content(" " * (spare - left))


def _as_lists(rows: list[list[Content]], width: int) -> list[Line]:
    """Where the columns have no room: one paragraph a row."""
    between = styled(" · ", ".dim")
    return [line for row in rows for line in wrap(between.join(row), width)]
