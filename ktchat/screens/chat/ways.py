"""The ways to make room in the context, in words and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.common.units import byte_size, count, duration, short_count
from engine.errors import KtchatError
from ktchat.screens.dialogs.overflow_sheet import Kind, Way
from ktchat.session.compaction import Compactor, Overflow, Room, speeds
from ktchat.widgets.formats import counted

if TYPE_CHECKING:
    from engine.protocol import Load, Loaded
    from ktchat.session.chat import ChatSession

ALONE = "even without the turns before it, it is too long"


async def ways(chat: ChatSession, overflow: Overflow, *, going_on: bool) -> list[Way]:
    """All ways but a longer context, which stands among them as not known yet.

    `going_on`: it is a reply that is to go on, and no message that a new session could begin with.
    """
    compactor = Compactor(chat)
    drop, summarise = await compactor.drop(overflow), await compactor.summarise(overflow)
    found = [
        _way(chat, "drop", "Drop {}", drop),
        _way(chat, "summarise", "Summarise {}", summarise),
        Way("longer", "A longer context", "finding out what fits …", possible=False),
    ]
    if not going_on:
        anew = await compactor.begin_anew(overflow)
        found.append(
            _way(chat, "new", "A new session that begins with a summary of this one", anew)
        )
    if overflow.left > 0:
        figures = f"{counted(overflow.left, 'token')} are left for the reply"
        found.append(Way("send", "Go on as it is" if going_on else "Send it as it is", figures))
    return found


def longer(chat: ChatSession, overflow: Overflow, load: Load, loaded: Loaded) -> Way:
    """The way of a longer context. Blocks."""
    from ktchat.library.longer_context import longer_context

    title = "A longer context"
    try:
        found = longer_context(loaded, load, overflow.tokens + overflow.reply)
    except KtchatError as error:
        return Way("longer", title, error.what, possible=False)
    if not found.tokens:
        return Way("longer", title, found.obstacle, possible=False)
    read = speeds(chat.conversation)[0] or found.prefill_tok_s or 0.0
    again = _seconds(overflow.tokens, read)
    figures = (
        f"needs {byte_size(found.more_bytes)} more · loads again, {duration(loaded.seconds)}"
        f" · reads {count(overflow.tokens)} again{again}"
    )
    return Way(
        "longer", f"{title}: {short_count(found.tokens)} tokens", figures, tokens=found.tokens
    )


def oldest(room: Room) -> str:
    """The turns that go unread: `the oldest turn`, `the 6 oldest turns`."""
    number = len(room.turns)
    return "the oldest turn" if number == 1 else f"the {count(number)} oldest turns"


def excess(overflow: Overflow) -> str:
    """How much too long it is."""
    numbers = f"{count(overflow.tokens)} tokens of {count(overflow.context)}"
    if overflow.left > 0:
        return f"{numbers}: only {count(overflow.left)} would be left for the reply"
    return f"{numbers}: {count(1 - overflow.left)} too many"


def _way(chat: ChatSession, kind: Kind, title: str, room: Room | None) -> Way:
    if room is None:
        return Way(kind, title.format("the oldest turns"), ALONE, possible=False)
    read, write = speeds(chat.conversation)
    parts = [f"frees {count(room.freed)} tokens"]
    if room.summary:
        parts.append(f"writes up to {count(room.summary)}{_seconds(room.summary, write)}")
    parts.append(f"reads {count(room.read)} again{_seconds(room.read, read)}")
    return Way(kind, title.format(oldest(room)), " · ".join(parts), room)


def _seconds(tokens: int, speed: float) -> str:
    return f", {duration(tokens / speed)}" if speed else ""
