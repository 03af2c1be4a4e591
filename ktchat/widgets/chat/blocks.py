"""Each Markdown block as rows of cells.

Styles are component classes. Links and the `copy` of a code block are actions of the widget that
shows them: `open_link(url)` and `copy_code(number)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from textual.content import Content, Span
from textual.style import Style

from ktchat.widgets.chat.code import chunks, coloured
from ktchat.widgets.chat.latex import unicode_of
from ktchat.widgets.chat.table import natural_widths, table
from ktchat.widgets.lines import BLANK, Line, copied_as, ends, fold, indent, styled, wrap

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode

BULLETS = ("•", "◦", "▪")
TO_DO, DONE = "☐ ", "☑ "
WRAPPED = "»"
"""Stands before a row of code that goes on from the row above. Every console's font has it."""
_CODE = ("fence", "code_block")


@dataclass(frozen=True, slots=True)
class Code:
    """A code block: its text and the language it says it is."""

    text: str
    language: str


def codes_in(node: SyntaxTreeNode) -> list[Code]:
    """The code blocks in a tree, in order."""
    if node.type in _CODE:
        return [_code(node)]
    if not node.is_nested:
        return []
    return [code for child in node.children for code in codes_in(child)]


def columns(node: SyntaxTreeNode) -> list[int] | None:
    """Cells that the columns of a table would like to have; None: it is no table."""
    return natural_widths(_cells(node)[0]) if node.type == "table" else None


def render(
    node: SyntaxTreeNode, width: int, first_code: int = 0, natural: list[int] | None = None
) -> list[Line]:
    """One block in rows of at most `width` cells.

    `first_code`: number of its first code block. `natural`: what the columns of a table would like to have, where
    that is not for this part of it to say.
    """
    return _Renderer(first_code, natural).block(node, max(4, width))


class _Renderer:
    """Walks one tree; counts code blocks and the depth of lists on the way."""

    def __init__(self, first_code: int, natural: list[int] | None) -> None:
        self._code = first_code
        self._natural = natural
        self._depth = 0

    def block(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        handler = _BLOCKS.get(node.type)
        if handler is not None:
            return handler(self, node, width)
        return self._children(node, width) if node.is_nested else wrap(Content(node.content), width)

    def _children(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        lines: list[Line] = []
        end = 0
        for child in node.children:
            start, stop = child.map or (end, end)
            tight = child.type in ("bullet_list", "ordered_list", "list_item") and start <= end
            if lines and not tight and child.type != "inline":
                lines.append(BLANK)
            lines.extend(self.block(child, width))
            end = stop
        return lines

    def paragraph(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        return wrap(_inline_of(node), width)

    def heading(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        style = ".heading-1" if node.tag in ("h1", "h2") else ".heading-2"
        return wrap(_inline_of(node).stylize_before(style), width)

    def rule(self, _node: SyntaxTreeNode, width: int) -> list[Line]:
        return [Line(styled("─" * width, ".dim"), gutter=width)]

    def quote(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        bar = styled("▏ ", ".dim")
        return indent(self._children(node, max(4, width - 2)), bar, bar)

    def listing(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        self._depth += 1
        lines = self._children(node, width)
        self._depth -= 1
        return lines

    def item(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        if "done" in node.meta:
            mark = DONE if node.meta["done"] else TO_DO
        elif node.info:
            mark = f"{node.info}{node.markup} "
        else:
            mark = f"{BULLETS[max(0, self._depth - 1) % len(BULLETS)]} "
        self._depth += 1 if self._depth == 0 else 0  # a top-level item comes without its list
        body = self._children(node, max(4, width - len(mark))) or [BLANK]
        return indent(body, styled(mark, ".dim"))

    def code(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        code = _code(node)
        label = styled(f" {code.language or 'code'}", ".code-head")
        copy = styled(" copy ", ".code-copy", ("copy_code", (self._code,)))
        self._code += 1
        head = ends(label, copy, width)
        lines = [Line(head.stylize_before(".code-block"), gutter=len(head), fill=".code-block")]
        for chunk in chunks(code.text):
            lines.extend(_code_rows(chunk, code.language, width))
        return lines

    def math(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        formula = _formula(node)
        return wrap(formula, width) if formula else wrap(Content(node.markup), width)

    def table(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        rows, align = _cells(node)
        return table(rows, align, width, self._natural)


_BLOCKS: dict[str, Callable[[_Renderer, SyntaxTreeNode, int], list[Line]]] = {
    "paragraph": _Renderer.paragraph,
    "heading": _Renderer.heading,
    "hr": _Renderer.rule,
    "blockquote": _Renderer.quote,
    "bullet_list": _Renderer.listing,
    "ordered_list": _Renderer.listing,
    "list_item": _Renderer.item,
    "fence": _Renderer.code,
    "code_block": _Renderer.code,
    "table": _Renderer.table,
    "math_block": _Renderer.math,
}


@lru_cache(maxsize=512)
def _code_rows(chunk: str, language: str, width: int) -> tuple[Line, ...]:
    """Rows of a piece of code. Kept, because a growing block is laid out again and again.

    What goes on from the row above has a sign in the margin, which is no part of a copy.
    """
    margin, wrapped = Content(" "), styled(WRAPPED, ".code-wrap")
    return tuple(
        Line(line.content.stylize_before(".code-block"), line.gutter, line.joint, ".code-block")
        for content in coloured(chunk, language)
        for line in indent(fold(content.expand_tabs(4), max(4, width - 2)), margin, wrapped)
    )


def _cells(node: SyntaxTreeNode) -> tuple[list[list[Content]], list[str]]:
    """The rows of a table, and how its columns are aligned."""
    rows = [row for part in node.children for row in part.children]
    styles = [str(cell.attrs.get("style", "")) for cell in rows[0].children] if rows else []
    align = [style.rpartition(":")[2] for style in styles]
    return [[_inline_of(cell) for cell in row.children] for row in rows], align


def _code(node: SyntaxTreeNode) -> Code:
    language = node.info.strip().split(" ")[0] if node.type == "fence" and node.info else ""
    return Code(node.content.removesuffix("\n"), language[:30])


def _inline_of(node: SyntaxTreeNode) -> Content:
    """The inline text of a paragraph, heading or cell."""
    texts: list[str] = []
    spans: list[Span] = []
    _inline(node.children, 0, texts, spans)
    return Content("".join(texts), spans)


_STYLES = {"strong": ".strong", "em": ".em", "s": ".struck", "code_inline": ".code"}


def _inline(nodes: list[SyntaxTreeNode], at: int, texts: list[str], spans: list[Span]) -> int:
    """Add the text of `nodes`, which begins at offset `at`; the offset at its end."""
    for node in nodes:
        start = at
        if node.type in ("softbreak", "hardbreak"):
            texts.append("\n")  # a line that the model broke stays broken
            at += 1
        elif node.type != "image" and node.children:
            at = _inline(node.children, at, texts, spans)
        elif not node.is_nested:
            formula = _formula(node) if node.type == "math" else None
            text = formula.plain if formula else _text(node)
            texts.append(text)
            at += len(text)
            if formula:
                spans.extend(Span(start, at, span.style) for span in formula.spans)
        if at > start:
            spans.extend(Span(start, at, style) for style in _styles(node))
    return at


def _text(node: SyntaxTreeNode) -> str:
    if node.type == "image":
        return f"[{node.content or 'image'}]"
    return node.markup if node.type == "math" else node.content


def _formula(node: SyntaxTreeNode) -> Content | None:
    """A formula in Unicode that is copied as its source; None: there is no Unicode for it."""
    text = unicode_of(node.content)
    return copied_as(Content(text), node.markup, node.meta["at"]) if text else None


def _styles(node: SyntaxTreeNode) -> list[str | Style]:
    if node.type in _STYLES:
        return [_STYLES[node.type]]
    if node.type not in ("link", "image"):
        return []
    url = str(node.attrs.get("href") or node.attrs.get("src") or "")
    if not is_web(url):
        return []
    return [".link", Style.from_meta({"@click": ("open_link", (url,))})]


def is_web(url: str) -> bool:
    """Whether a link may be opened: http and https, nothing else."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)
