"""Markdown as rows of cells, for text that grows while it is shown.

A document is a list of blocks (paragraph, heading, code, table, quote, one top-level list item).
Appending parses and lays out the last block again and nothing before it, so that the cost of a word
does not grow with the reply. What a block looks like is in `blocks`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from ktchat.widgets.chat.blocks import Code, codes_in, render
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
    width: int = 0  # for which `lines` holds
    lines: list[Line] = field(default_factory=list)


class Document:
    """Markdown source and its layout at one width."""

    def __init__(self, source: str = "") -> None:
        self._source = ""
        self._rows: list[str] = [""]  # the source, split at newlines
        self._blocks: list[_Block] = []
        self._lines: list[Line] = []
        self._laid_out = 0  # blocks whose rows are in _lines
        self._width = 0
        self.append(source)

    @property
    def source(self) -> str:
        """The whole Markdown text."""
        return self._source

    @property
    def codes(self) -> list[Code]:
        """The code blocks, in order."""
        return [code for block in self._blocks for code in block.codes]

    def append(self, fragment: str) -> None:
        """Add text at the end."""
        if not fragment:
            return
        self._source += fragment
        first, *more = fragment.split("\n")
        self._rows[-1] += first
        self._rows.extend(more)
        last = max(0, len(self._blocks) - 1)
        self._parse(last, self._blocks[last].line if self._blocks else 0)

    def finish(self) -> None:
        """Parse the whole once more if a link's target, given late, may concern a line above."""
        if "]:" in self._source:
            self._parse(0, 0)

    def lines(self, width: int) -> list[Line]:
        """The document laid out in rows of `width` cells. The list is the document's own."""
        if width != self._width:
            self._width, self._laid_out = width, 0
            self._lines.clear()
        for block in self._blocks[self._laid_out :]:
            if block.width != width:
                block.lines = render(block.node, width, block.first_code)
                block.width = width
            block.row = len(self._lines)
            if block.gap:
                self._lines.append(BLANK)
            self._lines.extend(block.lines)
        self._laid_out = len(self._blocks)
        return self._lines

    def _parse(self, keep: int, line: int) -> None:
        """Replace the blocks from number `keep` on by what the source says from `line` on."""
        if keep < self._laid_out:
            del self._lines[self._blocks[keep].row :]
            self._laid_out = keep
        del self._blocks[keep:]
        from markdown_it.tree import SyntaxTreeNode

        tree = SyntaxTreeNode(_parser().parse("\n".join(self._rows[line:])))
        for top in tree.children:
            for node in top.children if top.type in _LISTS else (top,):
                self._add(node, line + (node.map[0] if node.map else 0))

    def _add(self, node: SyntaxTreeNode, line: int) -> None:
        above = self._blocks[-1] if self._blocks else None
        loose = node.type != "list_item" or (line > 0 and not self._rows[line - 1].strip())
        gap = above is not None and above.node.type != "heading" and loose
        number = above.first_code + len(above.codes) if above else 0
        self._blocks.append(_Block(node, line, gap, number, codes_in(node)))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # imported with the first reply, not with the first frame

    parser = MarkdownIt("gfm-like", {"html": False})
    if parser.linkify is not None:  # a bare `config.py` is no link
        parser.linkify.set({"fuzzy_link": False, "fuzzy_email": False, "fuzzy_ip": False})
    return parser
