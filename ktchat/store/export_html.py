"""A session as one HTML page: nothing is loaded from elsewhere, and nothing that was said is markup or script.

What is not shown stands folded: the thinking, and the versions of a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ktchat import __version__
from ktchat.attachments.attachment import Attachment
from ktchat.store import tree
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.export import notes, written

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

STYLE = """
:root { color-scheme: light dark; --dim: #777; --line: #8884; --code: #8881; --accent: #06c; }
@media (prefers-color-scheme: dark) { :root { --dim: #999; --accent: #6af; } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; }
.dim, summary, footer { color: var(--dim); font-size: .85rem; }
article { border-top: 1px solid var(--line); padding: .8rem 0; }
h2 { font-size: .95rem; margin: .4rem 0; }
.you h2 { color: var(--accent); }
.words { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { background: var(--code); padding: .7rem; overflow-x: auto; border-radius: .3rem; }
code { font: .9em ui-monospace, monospace; }
table { border-collapse: collapse; } td, th { border: 1px solid var(--line); padding: .2rem .5rem; }
blockquote, details > div { border-left: 3px solid var(--line); margin-left: 0; padding-left: .8rem; }
"""


def to_html(conversation: Conversation, facts: dict[str, Any] | None = None) -> str:
    """The session as a page of its own."""
    title = escape(conversation.shown_title)
    known = {key: value for key, value in (facts or {}).items() if key != "template"}
    about = " · ".join(
        [written(conversation.created), conversation.model_name or "no model", *_words(known)]
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">",
        '<meta name="referrer" content="no-referrer">',
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f'<h1>{title}</h1><p class="dim">{escape(about)}</p>',
    ]
    if conversation.system.strip():
        parts.append(
            _details("System message", f'<div class="words">{escape(conversation.system)}</div>')
        )
    for turn in conversation.turns:
        parts.append(_turn(conversation, turn))
    parts.append(f"<footer>ktchat {escape(__version__)}</footer></body></html>\n")
    return "\n".join(parts)


def _turn(conversation: Conversation, turn: Turn) -> str:
    others = [
        other
        for other in tree.children(conversation, turn.parent)
        if other is not turn and other.reply
    ]
    said = " · ".join(notes(turn))
    parts = [
        '<article class="you"><h2>You</h2>',
        *(_attachment(item) for item in turn.attachments),
        f'<div class="words">{escape(turn.prompt)}</div></article>',
        f"<article><h2>{escape(turn.model or 'Model')}</h2>",
        _thinking(turn),
        _markdown().render(turn.reply),
        f'<p class="dim">{escape(said)}</p>' if said else "",
        *(_version(other) for other in others),
        "</article>",
    ]
    return "\n".join(filter(None, parts))


def _attachment(item: Attachment) -> str:
    known = f" · SHA-256 {item.sha256}" if item.sha256 else ""
    return _details(f"{item.name}{known}", f"<pre>{escape(item.text)}</pre>")


def _thinking(turn: Turn) -> str:
    if not turn.thinking.strip():
        return ""
    return _details("Thinking", f'<div class="words">{escape(turn.thinking.strip())}</div>')


def _version(turn: Turn) -> str:
    prompt = f'<div class="words">{escape(turn.prompt)}</div>'
    return _details("Another version", f"<div>{prompt}<hr>{_markdown().render(turn.reply)}</div>")


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _words(facts: dict[str, Any]) -> Sequence[str]:
    return [f"{key} {value}" for key, value in facts.items() if value]


@cache
def _markdown() -> MarkdownIt:
    """Markdown without HTML and pictures, and with links to the web only."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.disable(["image", "html_block", "html_inline"])
    parser.validateLink = lambda url: urlsplit(url).scheme in ("http", "https")  # type: ignore[method-assign]
    return parser
