"""What our Markdown has beyond GitHub's: formulas, and boxes of tasks.

Formulas stand between `\\( \\)`, `\\[ \\]`, `$ $` and `$$ $$`; prices and shell variables do not. Code is never looked at.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from ktchat.widgets.chat.latex import MAX_SOURCE

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline

MAX_ROWS = 50
"""Rows of a formula that stands by itself."""

_PAIRS = {r"\(": r"\)", r"\[": r"\]", "$$": "$$"}
_MATHS = re.compile(r"[\\^_=+*/<>{}|]|\s-\s")
_VARIABLE = re.compile(r"[({]|[A-Z_][A-Z0-9_]+\b(?![\s^]*[\\^_=+*/<>|-])")
_TASK = re.compile(r"\[([ xX])\](?:[ \t]+|$)")


@cache
def parser() -> MarkdownIt:
    """The parser of all Markdown that is shown."""
    from markdown_it import MarkdownIt  # imported with the first reply, not with the first frame

    parser = MarkdownIt("gfm-like", {"html": False})
    if parser.linkify is not None:  # a bare `config.py` is no link
        parser.linkify.set({"fuzzy_link": False, "fuzzy_email": False, "fuzzy_ip": False})
    parser.inline.ruler.before("escape", "math", _inline)
    alternatives = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("fence", "math_block", _block, {"alt": alternatives})
    parser.core.ruler.after("inline", "tasks", _tasks)
    return parser


def _inline(state: StateInline, silent: bool) -> bool:
    source, at = state.src, state.pos
    if source[at] not in "\\$":
        return False
    opening = source[at : at + 2]
    closing = _PAIRS.get(opening)
    if closing is not None:
        end = source.find(closing, at + 2, at + 2 + MAX_SOURCE)
        inside = source[at + 2 : end]
        if end < 0 or not inside.strip() or "`" in inside:
            return False
        end += 2
    elif source[at] == "$":
        end = _end_of_dollars(source, at)
        inside = source[at + 1 : end - 1]
    else:
        return False
    if not end:
        return False
    if not silent:
        token = state.push("math", "", 0)
        token.content, token.markup = inside, source[at:end]
        token.meta = {"at": at}
    state.pos = end
    return True


def _end_of_dollars(source: str, at: int) -> int:
    """Where a formula between single dollars ends; 0: these are prices, variables or words."""
    before, first = source[at - 1 : at], source[at + 1 : at + 2]
    if before.isalnum() or before == "$" or not first or first.isspace() or first == "$":
        return 0
    end = source.find("$", at + 1, at + 1 + MAX_SOURCE)
    inside, after = source[at + 1 : end], source[end + 1 : end + 2]
    if end < 0 or inside[-1].isspace() or inside[-1] == "\\" or "\n" in inside or "`" in inside:
        return 0
    if after.isalnum() or (after in ("_", "(", "{", "$") and after):
        return 0
    wordy = " " in inside or (
        inside[0].isdigit() and not inside.isalnum() and not _MATHS.search(inside)
    )
    if (wordy and not _MATHS.search(inside)) or (_VARIABLE.match(inside) and "\\" not in inside):
        return 0
    return end + 1


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula in rows of its own, with nothing beside it."""
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    if first[:2] not in (r"\[", "$$"):
        return False
    closing = _PAIRS[first[:2]]
    rows: list[str] = []
    for number in range(start, min(end, start + MAX_ROWS)):
        row = state.src[state.bMarks[number] : state.eMarks[number]].strip()
        row = row[2:] if number == start else row
        if number > start and (not row or state.sCount[number] < state.blkIndent):
            return False
        if closing in row:
            if not row.endswith(closing) or row.index(closing) != len(row) - 2:
                return False
            inside = "\n".join([*rows, row[:-2]])
            if not inside.strip():
                return False
            if not silent:
                token = state.push("math_block", "", 0)
                token.content, token.map = inside, [start, number + 1]
                token.markup, token.meta = f"{first[:2]}{inside}{closing}", {"at": 0}
            state.line = number + 1
            return True
        rows.append(row)
    return False


def _tasks(state: StateCore) -> None:
    """`- [ ]` and `- [x]`: the item knows, and its text begins behind the box."""
    tokens = state.tokens
    for item, _, text in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if item.type != "list_item_open" or text.type != "inline" or not text.children:
            continue
        first = text.children[0]
        box = _TASK.match(first.content) if first.type == "text" else None
        if box is not None:
            item.meta = {"done": box.group(1) != " "}
            first.content = first.content[box.end() :]
