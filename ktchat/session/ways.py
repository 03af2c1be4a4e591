"""The ways to make room in the context, in words and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.common.units import byte_size, count, duration, short_count
from engine.errors import KtchatError
from ktchat.common.words import counted
from ktchat.library.longer_context import LongerContext, longer_context
from ktchat.session.compaction import Compactor, Overflow, Room, speeds

if TYPE_CHECKING:
    from engine.protocol import Load, Loaded
    from ktchat.session.chat import ChatSession

ALONE = "even without the turns before it, it is too long"
LONGER = "A longer context"


Kind = Literal["drop", "summarise", "longer", "new", "send"]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make room: what it is called, what it costs, and why it cannot be taken."""

    kind: Kind
    title: str
    figures: str
    room: Room | None = None
    tokens: int = 0
    """Of a longer context."""
    possible: bool = True
    always: bool = False
    """From now on without asking."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What was found for one message, or for a reply that is to go on."""

    overflow: Overflow
    loaded: Loaded
    going_on: bool
    """It is a reply: there is no message that a new session could begin with."""
    drop: Room | None
    summarise: Room | None
    anew: Room | None

    def listed(self, longer: LongerContext | None = None) -> list[Way]:
        """The ways as they are offered; `longer` None: whether a longer context fits is not known yet."""
        read, write = speeds(self.overflow.conversation)
        read = read or (longer.prefill_tok_s if longer else None) or 0.0
        found = [
            _way("drop", "Drop {}", self.drop, read, write),
            _way("summarise", "Summarise {}", self.summarise, read, write),
            self._longer(longer, read),
        ]
        if not self.going_on:
            title = "A new session that begins with a summary of this one"
            found.append(_way("new", title, self.anew, read, write))
        if self.overflow.left > 0:
            figures = f"{counted(self.overflow.left, 'token')} are left for the reply"
            title = "Go on as it is" if self.going_on else "Send it as it is"
            found.append(Way("send", title, figures))
        return found

    def _longer(self, longer: LongerContext | None, read: float) -> Way:
        if longer is None:
            return Way("longer", LONGER, "finding out what fits …", possible=False)
        if not longer.tokens:
            return Way("longer", LONGER, longer.obstacle, possible=False)
        tokens = self.overflow.tokens
        figures = (
            f"needs {byte_size(longer.more_bytes)} more"
            f" · loads again, {duration(self.loaded.seconds)}"
            f" · reads {count(tokens)} again{_seconds(tokens, read)}"
        )
        title = f"{LONGER}: {short_count(longer.tokens)} tokens"
        return Way("longer", title, figures, tokens=longer.tokens)


async def find(chat: ChatSession, overflow: Overflow, loaded: Loaded) -> Ways:
    """All ways for an overflow."""
    compactor, going_on = Compactor(chat), bool(overflow.conversation.turns[-1].raw_reply)
    return Ways(
        overflow,
        loaded,
        going_on,
        await compactor.drop(overflow),
        await compactor.summarise(overflow),
        None if going_on else await compactor.begin_anew(overflow),
    )


def find_longer(overflow: Overflow, load: Load, loaded: Loaded) -> LongerContext:
    """A longer context, or why there is none. Blocks."""
    try:
        return longer_context(loaded, load, overflow.tokens + overflow.reply)
    except KtchatError as error:
        return LongerContext(obstacle=error.what)


def excess(overflow: Overflow) -> str:
    """How much too long it is."""
    numbers = f"{count(overflow.tokens)} tokens of {count(overflow.context)}"
    if overflow.left > 0:
        return f"{numbers}: only {count(overflow.left)} would be left for the reply"
    return f"{numbers}: {count(1 - overflow.left)} too many"


def _way(kind: Kind, title: str, room: Room | None, read: float, write: float) -> Way:
    if room is None:
        return Way(kind, title.format("the oldest turns"), ALONE, possible=False)
    parts = [f"frees {count(room.freed)} tokens"]
    if room.summary:
        parts.append(f"writes up to {count(room.summary)}{_seconds(room.summary, write)}")
    parts.append(f"reads {count(room.read)} again{_seconds(room.read, read)}")
    return Way(kind, title.format(room.oldest), " · ".join(parts), room)


def _seconds(tokens: int, speed: float) -> str:
    if not speed:
        return ""
    seconds = tokens / speed
    return f", {duration(seconds)}" if seconds >= 1 else ", under 1 s"
