"""Room in the context for a plain chat: as the setting says, or as the person answers a numbered question."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from engine.common.threads import ask
from ktchat.cli.plain.models import load
from ktchat.cli.plain.sessions import entered
from ktchat.cli.plain.state import PlainChat
from ktchat.session import ways
from ktchat.session.compaction import Compactor
from ktchat.store.conversation import Compaction

if TYPE_CHECKING:
    from ktchat.session.compaction import Overflow, Room
    from ktchat.session.ways import Way
    from ktchat.store.conversation import Conversation


Made = Literal["room", "none", "new session"]
"""A reply may begin; it may not; it may, in the session that is open now."""


async def make_room(plain: PlainChat, conversation: Conversation) -> Made:
    """Make room for a reply, if there is too little. Raises what the engine raises."""
    compactor = Compactor(plain.chat)
    plain.stopped = False
    if compactor.surely_fits(conversation):
        return "room"
    overflow = await compactor.overflow(conversation)
    if overflow is None:
        return "room"
    policy = plain.settings.settings.overflow
    if policy == "stop" and overflow.left > 0:
        return "room"
    what = "the reply" if conversation.turns[-1].raw_reply else "the message"
    plain.say(f"{what} does not fit into the context: {ways.excess(overflow)}")
    room = None
    if policy == "drop":
        room = await compactor.drop(overflow)
    elif policy == "summarise":
        room = await compactor.summarise(overflow)
    if room is not None:
        return await _make(plain, overflow, room, asks=False)
    if policy != "stop" and plain.question is not None:
        return await _ask(plain, overflow)
    if overflow.left > 0:
        return "room"
    plain.say("nothing was sent; with /set overflow drop the oldest turns go unread")
    return "none"


async def _ask(plain: PlainChat, overflow: Overflow) -> Made:
    loaded = plain.chat.loaded
    assert loaded is not None and plain.question is not None
    found = await ways.find(plain.chat, overflow, loaded)
    command = plain.settings.load(loaded.path)
    listed = found.listed(await ask(ways.find_longer, overflow, command, loaded))
    possible = [way for way in listed if way.possible]
    plain.say("choose how to make room")
    for number, way in enumerate(possible, 1):
        plain.voice.item(f"{number}. {way.title}: {way.figures}")
    for way in listed:
        if not way.possible:
            plain.voice.item(f"not possible: {way.title}: {way.figures}")
    if any(way.kind in ("drop", "summarise") for way in possible):
        plain.voice.item("“always” behind the number of dropping or summarising keeps the choice.")
    while True:
        answer = await plain.question("Number, or Enter to leave all as it was: ")
        chosen, _, more = (answer or "").strip().partition(" ")
        if not chosen:
            plain.say("all stays as it was; nothing was sent")
            return "none"
        if chosen.isdecimal() and 1 <= int(chosen) <= len(possible):
            way = possible[int(chosen) - 1]
            if more.strip() == "always" and way.kind in ("drop", "summarise"):
                plain.remember(overflow=way.kind)
            return await _go(plain, overflow, way)
        plain.say(f"{chosen} is none of the numbers 1 to {len(possible)}")


async def _go(plain: PlainChat, overflow: Overflow, way: Way) -> Made:
    if way.kind == "send":
        return "room"
    if way.kind == "longer":
        return await _load_longer(plain, way.tokens)
    assert way.room is not None
    if way.kind != "new":
        return await _make(plain, overflow, way.room, asks=True)
    summary = await _summary(plain, overflow, way.room, asks=True)
    if summary is None:
        return "none"
    left = plain.chat.conversation
    await plain.chat.new()
    entered(plain)
    plain.chat.conversation.think = left.think
    plain.chat.conversation.choose_compaction(Compaction(0, summary))
    return "new session"


async def _make(plain: PlainChat, overflow: Overflow, room: Room, asks: bool) -> Made:
    summary = room.compaction.summary
    if room.summary:
        written = await _summary(plain, overflow, room, asks)
        if written is None:
            return "none"
        summary = written
    plain.chat.choose_compaction(Compaction(room.compaction.unread, summary))
    are = "is" if len(room.turns) == 1 else "are"
    what = "summarised" if room.summary else "no longer read"
    plain.say(f"{room.oldest} {are} {what}; /bringback has them read again")
    return "room"


async def _summary(plain: PlainChat, overflow: Overflow, room: Room, asks: bool) -> str | None:
    """The summary, as the model wrote it or the person; None: all stays as it was."""
    plain.say(f"summarising {room.oldest}")
    text = shown = ""
    async for text in Compactor(plain.chat).write(room, overflow.conversation):
        if not text.startswith(shown):  # another part: it begins anew
            plain.voice.finish()
            shown = ""
        plain.voice.speak(text[len(shown) :])
        shown = text
    plain.voice.finish()
    if plain.stopped:
        plain.say("stopped: all stays as it was")
        return None
    plain.say("end of the summary")
    if not asks or plain.question is None:
        return text
    question = "Enter takes it, n leaves all as it was; or type another summary: "
    answer = await plain.question(question)
    if answer is None or answer.strip().lower() in ("n", "no"):
        plain.say("all stays as it was; nothing was sent")
        return None
    return answer.strip() or text


async def _load_longer(plain: PlainChat, tokens: int) -> Made:
    """Load the model with a longer context; where that fails, again as it was."""
    settings, loaded = plain.settings, plain.chat.loaded
    assert loaded is not None
    overrides = settings.overrides
    for context in (tokens, loaded.context):
        settings.overrides = replace(overrides, context=context)
        try:
            await load(plain, loaded.path)
        finally:
            settings.overrides = overrides
        present = plain.chat.loaded
        if present is not None:
            break
    return "room" if present is not None and present.context >= tokens else "none"
