"""A turn read out in the plain chat, with the marks that it had when it was written."""

from __future__ import annotations

from engine.protocol import Figures
from ktchat.cli.plain.state import PlainChat
from ktchat.common import words
from ktchat.common.text import one_line
from ktchat.store import tree
from ktchat.store.conversation import Turn


def tell(plain: PlainChat, turn: Turn) -> None:
    """Read a turn, marked as it was when it was written."""
    conversation = plain.chat.conversation
    number = next((i for i, shown in enumerate(conversation.turns, 1) if shown is turn), 0)
    plain.say(f"you, turn {number} of {len(conversation.turns)}{_place(plain, turn, 'prompt')}")
    plain.voice.tell(turn.prompt)
    if turn.thinking.strip() and not plain.settings.settings.thinking_folded:
        plain.say("thinking")
        plain.voice.tell(turn.thinking.strip("\n"))
    model = f", {one_line(turn.model, 60)}" if turn.model else ""
    plain.say(f"reply{model}{_place(plain, turn, 'reply')}")
    if turn.reply.strip():
        plain.voice.tell(turn.reply.strip("\n"))
    if turn.error is not None:
        plain.say(f"error: {turn.error}")
    plain.say(ending(turn, turn.figures))


def _place(plain: PlainChat, turn: Turn, part: tree.Part) -> str:
    at, of = tree.place(plain.chat.conversation, turn, part)
    return f", version {at} of {of}" if of > 1 else ""


def ending(turn: Turn | None, figures: Figures | None) -> str:
    """The mark at a reply's end: how it ended, and its figures."""
    said = "end"
    if turn is not None:
        how = turn.state if turn.state in words.ENDINGS else turn.reason or ""
        if how in words.ENDINGS:
            said = f"end, {words.ENDINGS[how]}"
        elif not (turn.raw_reply or turn.raw_thinking):
            said = "end, an empty reply"
        elif turn.edited is not None:
            said = "end, changed by you"
        if turn.can_go_on:
            said += ", /continue goes on"
        figures = None if turn.edited is not None else figures
    return f"{said} · {words.figures(figures)}" if figures and figures.reply_tokens else said
