"""A piece of Markdown as blocks (paragraph, heading, code, table, quote, one top-level list item).

Appending parses and lays out the last block again and nothing before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ktchat.widgets.chat.blocks import Code, codes_in, columns, render
from ktchat.widgets.chat.cutting import Opening
from ktchat.widgets.lines import BLANK, Line

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

_LISTS = ("bullet_list", "ordered_list")


@dataclass(slots=True)
class _Block:
    node: SyntaxTreeNode
    line: int  # of the source, where it begins
    gap: bool  # a blank row stands between it and the block above
    first_code: int  # number of its first code block
    codes: list[Code]
    row: int = 0  # its first row in the layout, the gap included
    width: int = 0  # for which `rows` holds
    rows: list[Line] = field(default_factory=list)


class Section:
    """The source of a piece, its blocks, and its layout at one width.

    `opening`: what it goes on with. `targets`: of links, by name. `first_code`: number of its first code block. `gap`: a
    blank row stands above it.
    """

    def __init__(
        self,
        source: str,
        opening: Opening,
        parser: MarkdownIt,
        targets: Mapping[str, object],
        first_code: int,
        *,
        gap: bool,
    ) -> None:
        self._opening, self._parser, self._targets = opening, parser, targets
        self._first_code, self._gap = first_code, gap
        self._indent = re.compile(f"^ {{1,{opening.indent}}}", re.M) if opening.indent else None
        self._source: list[str] = [""]  # the source, split at newlines
        self._blocks: list[_Block] = []
        self._lines: list[Line] = []
        self._laid_out = 0  # blocks whose rows are in _lines
        self._width = 0
        self.append(opening.lead + source)

    @property
    def codes(self) -> list[Code]:
        """The code blocks, in order."""
        return [code for block in self._blocks for code in block.codes]

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self._blocks)

    @property
    def last_columns(self) -> list[int] | None:
        """How wide the columns of the table at its end would like to be, if there is one."""
        return columns(self._blocks[-1].node) if self._blocks else None

    def append(self, fragment: str) -> None:
        """Add text at the end."""
        first, *more = fragment.split("\n")
        self._source[-1] += first
        self._source.extend(more)
        last = max(0, len(self._blocks) - 1)
        self._parse(last, self._blocks[last].line if self._blocks else 0)

    def lines(self, width: int, natural: list[int] | None = None) -> list[Line]:
        """The rows at a width; the list is the section's own. `natural`: columns of a table that goes on."""
        if width != self._width:
            self._width, self._laid_out = width, 0
            self._lines = []
        for number in range(self._laid_out, len(self._blocks)):
            block = self._blocks[number]
            if block.width != width:
                goes_on = number == 0 and self._opening.kind in ("code", "table")
                rows = render(block.node, width, block.first_code, natural if goes_on else None)
                block.rows, block.width = rows[_heads(block.node) :] if goes_on else rows, width
                if number == 0 and self._opening.joint != "\n" and block.rows:
                    first = replace(block.rows[0], joint=self._opening.joint)
                    block.rows = [first, *block.rows[1:]]
            block.row = len(self._lines)
            if block.gap:
                self._lines.append(BLANK)
            self._lines.extend(block.rows)
        self._laid_out = len(self._blocks)
        return self._lines

    def _parse(self, keep: int, line: int) -> None:
        """Replace the blocks from number `keep` on by what the source says from `line` on."""
        if keep < self._laid_out:
            del self._lines[self._blocks[keep].row :]
            self._laid_out = keep
        del self._blocks[keep:]
        from markdown_it.tree import SyntaxTreeNode

        source = "\n".join(self._source[line:])
        if self._indent is not None:
            source = self._indent.sub("", source)
        references = {"references": dict(self._targets)}
        tree = SyntaxTreeNode(self._parser.parse(source, references))
        for top in tree.children:
            for node in top.children if top.type in _LISTS else (top,):
                self._add(node, line + (node.map[0] if node.map else 0))

    def _add(self, node: SyntaxTreeNode, line: int) -> None:
        above = self._blocks[-1] if self._blocks else None
        loose = node.type != "list_item" or (line > 0 and not self._source[line - 1].strip())
        gap = above.node.type != "heading" and loose if above is not None else self._gap
        number = above.first_code + len(above.codes) if above else self._first_code
        self._blocks.append(_Block(node, line, gap, number, codes_in(node)))


def _heads(node: SyntaxTreeNode) -> int:
    """Rows above a code block's text, or a table's."""
    return {"fence": 1, "table": 2}.get(node.type, 0)
