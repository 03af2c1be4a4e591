"""Syntax colours for code blocks.

A block is coloured in chunks, so that a block that grows while it streams costs one chunk and not the
whole. The colours are component classes (`.code-keyword`), which the style sheet gives a meaning.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from textual.content import Content, Span

if TYPE_CHECKING:
    from pygments.lexer import Lexer  # type: ignore[import-untyped]

CHUNK = 48
"""Lines coloured at a time. A string over several chunks may lose its colour at the border."""

MAX_COLOURED = 12_000
"""Characters of a piece that gets colours; more in so few lines is no code to read."""

_STYLES = {
    "Comment": ".code-comment",
    "Keyword": ".code-keyword",
    "Operator.Word": ".code-keyword",
    "Name.Tag": ".code-keyword",
    "Name.Decorator": ".code-name",
    "Name.Function": ".code-name",
    "Name.Class": ".code-name",
    "Name.Attribute": ".code-name",
    "Literal.String": ".code-string",
    "Literal.Number": ".code-number",
    "Keyword.Constant": ".code-number",
    "Generic.Deleted": ".code-deleted",
    "Generic.Inserted": ".code-string",
    "Generic.Heading": ".code-name",
}
"""Token types that stand out; everything else has the colour of text."""


def chunks(code: str) -> list[str]:
    """The code in pieces of at most `CHUNK` lines."""
    lines = code.split("\n")
    return ["\n".join(lines[start : start + CHUNK]) for start in range(0, len(lines), CHUNK)]


def coloured(code: str, language: str) -> list[Content]:
    """The lines of a piece of code with their colours; plain when the language is not known."""
    lexer = _lexer(language.lower()) if language and len(code) <= MAX_COLOURED else None
    if lexer is None:
        return [Content(line) for line in code.split("\n")]
    spans: list[Span] = []
    at = 0
    for token_type, text in lexer.get_tokens(code):
        style = _style_of(str(token_type).removeprefix("Token."))
        if style:
            spans.append(Span(at, at + len(text), style))
        at += len(text)
    return Content(code, spans).split("\n", allow_blank=True) or [Content("")]


@lru_cache(maxsize=32)
def _lexer(language: str) -> Lexer | None:
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@lru_cache(maxsize=512)
def _style_of(token_type: str) -> str:
    while token_type:
        if token_type in _STYLES:
            return _STYLES[token_type]
        token_type = token_type.rpartition(".")[0]
    return ""
