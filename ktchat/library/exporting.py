"""A session as text for a file, with what is known of its model."""

from __future__ import annotations

from ktchat.library.model_facts import facts
from ktchat.store.conversation import Conversation
from ktchat.store.export import to_json, to_markdown
from ktchat.store.export_html import to_html

FORMATS = ("markdown", "json", "html")
SUFFIXES = {"markdown": ".md", "json": ".json", "html": ".html"}


def exported(conversation: Conversation, form: str) -> str:
    """The session in one of `FORMATS`; JSON has its whole tree. Blocks shortly."""
    if form == "markdown":
        return to_markdown(conversation, thinking=True)
    known = facts(conversation.model_path)
    if form == "html":
        return to_html(conversation, known)
    return to_json(conversation, conversation.others, known)
