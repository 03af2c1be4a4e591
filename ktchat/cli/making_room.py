"""Room in the context for a message of `ktchat run`, as the setting `overflow` says, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

from engine.common.units import count
from engine.errors import ContextError
from ktchat.attachments.attachment import Draft
from ktchat.common.settings import OverflowPolicy
from ktchat.session.chat import ChatSession
from ktchat.session.compaction import Compactor, Overflow, Room, unsent
from ktchat.store.conversation import Compaction

Say = Callable[[str], None]


async def make_room(chat: ChatSession, draft: Draft, policy: OverflowPolicy, say: Say) -> None:
    """Let the oldest turns go unread where `draft` would not fit; `say` is told what was done.

    Raises `ContextError` where nothing may or can be done, and what the engine raises. Nothing has changed then.
    """
    compactor = Compactor(chat)
    overflow = await compactor.overflow(unsent(chat.conversation, draft))
    if overflow is None:
        return
    drop, summarise = await compactor.drop(overflow), await compactor.summarise(overflow)
    room = {"drop": drop, "summarise": summarise}.get(policy)
    if room is not None:
        await _take(chat, compactor, room, say)
    elif overflow.left < 1:
        raise _refusal(overflow, policy, drop, summarise)


async def _take(chat: ChatSession, compactor: Compactor, room: Room, say: Say) -> None:
    summary = room.compaction.summary
    if room.summary:
        say(f"Summarising {room.oldest}.")
        async for text in compactor.write(room, chat.conversation):
            summary = text
    chat.conversation.choose_compaction(Compaction(room.compaction.unread, summary))
    say(
        f"{room.oldest.capitalize()} {'is' if len(room.turns) == 1 else 'are'} no longer read"
        f"{', but a summary' if room.summary else ''}: {count(room.freed)} tokens are free again."
    )


def _refusal(
    overflow: Overflow, policy: OverflowPolicy, drop: Room | None, summarise: Room | None
) -> ContextError:
    what = "The message does not fit into the context"
    why = f"With the conversation before it, it has {count(overflow.tokens)} tokens of {count(overflow.context)}"
    if drop is None and summarise is None:
        todo = (
            "Even alone it is too long: shorten it, or load the model with a longer context (--ctx)"
        )
        return ContextError(what, why, todo)
    ways = (
        [f"--overflow drop lets {drop.oldest} go unread ({count(drop.freed)} tokens)"]
        if drop
        else []
    )
    if summarise is not None:
        ways.append(f"--overflow summarise has {summarise.oldest} summed up first")
    if policy == "ask":
        ways.append("the setting overflow keeps the choice")
    return ContextError(
        what,
        f"{why}. The session is as it was",
        f"{'; '.join(ways)}; without -c a new session begins",
    )
