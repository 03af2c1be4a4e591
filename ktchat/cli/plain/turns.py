"""The turns of the open session in the plain chat: read, regenerated, edited, their versions."""

from __future__ import annotations

from ktchat.attachments.attachment import Draft
from ktchat.cli.plain.replies import reply, send
from ktchat.cli.plain.sessions import entered
from ktchat.cli.plain.state import PlainChat
from ktchat.cli.plain.telling import tell
from ktchat.common.text import one_line
from ktchat.common.words import counted, read_again
from ktchat.session.compaction import going_on, unsent
from ktchat.store import tree
from ktchat.store.conversation import Turn

WORTH_SAYING = 16
"""Tokens from which it is said that they are read again."""


async def show(plain: PlainChat, argument: str) -> None:
    """Read the open session, or one of its turns."""
    if argument:
        turn = plain.turn(argument)
        if turn is not None:
            tell(plain, turn)
        return
    conversation = plain.chat.conversation
    unread = conversation.compaction
    if not conversation.turns:
        plain.say("there is no message yet")
    for number, turn in enumerate(conversation.turns):
        if unread.unread and number == unread.unread:
            plain.say(f"up to here {counted(unread.unread, 'turn')} no longer read by the model")
        tell(plain, turn)


async def regenerate(plain: PlainChat, argument: str) -> None:
    """Have another reply written, or try again."""
    turn = plain.turn(argument)
    if turn is not None:
        plain.prefill = "" if plain.prefill == turn.raw_prompt else plain.prefill
        await _price(plain, turn, None)
        conversation = unsent(plain.chat.conversation, turn.draft, turn)
        await reply(plain, lambda: plain.chat.regenerate(turn), conversation)


async def go_on(plain: PlainChat, argument: str) -> None:
    """Let a reply go on from its end."""
    turn = plain.turn(argument)
    if turn is None:
        return
    conversation = plain.chat.conversation
    if turn.can_go_on:
        conversation = going_on(conversation, turn)
    await reply(plain, lambda: plain.chat.go_on(turn), conversation)


async def edit(plain: PlainChat, argument: str) -> None:
    """Put a message into the line, to be sent again; or the words that take the place of the last one."""
    number = argument if argument.isdecimal() else ""
    turn = plain.turn(number)
    if turn is None:
        return
    plain.edited = turn
    if argument and not number:
        await send(plain, argument)
        return
    await _price(plain, turn, "prompt")
    plain.prefill = turn.raw_prompt
    plain.say("the next message takes the place of this one; /leave leaves it as it is")
    plain.voice.tell(turn.prompt)


async def leave(plain: PlainChat, _: str) -> None:
    """Leave editing."""
    was, plain.edited, plain.prefill = plain.edited, None, ""
    plain.say("it stays as it is" if was else "nothing is being edited")


async def _price(plain: PlainChat, turn: Turn, part: tree.Part | None) -> None:
    tokens = await plain.chat.read_again(turn, part)
    if tokens is not None and tokens >= WORTH_SAYING:
        plain.say(read_again(tokens, plain.chat.prompt_speed))


async def branch(plain: PlainChat, argument: str) -> None:
    """Begin a session with the conversation up to a turn."""
    turn = plain.turn(argument)
    if turn is not None:
        plain.chat.keep_draft(Draft(plain.prefill, plain.chat.draft.attachments))
        await plain.chat.branch(turn)
        entered(plain)
        plain.say("it has all up to there; the other session stays as it is")


async def versions(plain: PlainChat, argument: str) -> None:
    """The versions of a turn, or another one of them: `[N] [of TURN]`."""
    number, _, of = argument.partition("of")
    turn = plain.turn(of.strip()) if of.strip() else _last_with_versions(plain)
    if turn is None:
        return
    conversation = plain.chat.conversation
    every = [
        version
        for words in tree.versions(conversation, turn, "prompt")
        for version in tree.versions(conversation, words, "reply")
    ]
    if number.strip():
        if not number.strip().isdecimal() or not 1 <= int(number) <= len(every):
            plain.say(f"there is no version {number.strip()}: they are 1 to {len(every)}")
            return
        plain.chat.show_version(every[int(number) - 1])
        tell(plain, every[int(number) - 1])
        return
    at = next(i for i, shown in enumerate(conversation.turns, 1) if shown is turn)
    plain.say(f"versions of turn {at}; /versions N shows one")
    for count, version in enumerate(every, 1):
        shown = ", shown" if version is turn else ""
        said = f"you: {one_line(version.prompt, 60)} · reply: {one_line(version.reply, 60)}"
        plain.voice.item(f"{count}{shown}. {said}")


def _last_with_versions(plain: PlainChat) -> Turn | None:
    conversation = plain.chat.conversation
    for turn in reversed(conversation.turns):
        if any(tree.place(conversation, turn, part).of > 1 for part in ("prompt", "reply")):
            return turn
    plain.say("there is one version of every turn")
    return None


async def bring_back(plain: PlainChat, _: str) -> None:
    """Have turns read again that are no longer read."""
    chat = plain.chat
    earlier = chat.conversation.earlier_compaction
    if earlier is None or chat.read_only:
        plain.say("every turn is read" if earlier is None else "this session can only be read here")
        return
    more = counted(chat.conversation.compaction.unread - earlier.unread, "turn")
    chat.choose_compaction(earlier)
    plain.say(f"from the next message on {more} more are read again")
