"""Sessions in the plain chat: which there are, opening, naming, deleting, searching, files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.cli.plain.state import PlainChat
from ktchat.cli.plain.telling import tell
from ktchat.common.text import one_line
from ktchat.common.words import counted, on_disk

if TYPE_CHECKING:
    from ktchat.store.search import Hit

LISTED = 20
"""Sessions that are listed at once, the last used first."""


def entered(plain: PlainChat) -> None:
    """Another session is open: say which, and what stands in its prompt."""
    chat = plain.chat
    conversation = chat.conversation
    plain.edited, plain.prefill = None, chat.draft.text
    plain.remember(last_session=conversation.id)
    turns = len(conversation.turns)
    if turns:
        shown = f"session “{conversation.shown_title}”, {counted(turns, 'turn')}; /show reads it"
    else:
        shown = "a new session"
    plain.say(shown)
    if chat.read_only:
        plain.say(
            "this session is open in another ktchat: it can only be read here; /new begins another"
        )
    if chat.draft.text.strip():
        plain.say(f"a message was not sent: {one_line(chat.draft.text, 200)}")
    if chat.draft.attachments:
        names = ", ".join(attachment.name for attachment in chat.draft.attachments)
        plain.say(f"attached to the next message: {names}")


async def start(plain: PlainChat) -> None:
    """Open the session of the last time, or begin one."""
    chat, session = plain.chat, plain.settings.settings.last_session
    with contextlib.suppress(KtchatError):  # it is gone, or unreadable: begin a new one
        if session:
            await chat.open(session)
    if chat.conversation.id != session:
        await chat.new()
    entered(plain)


async def new(plain: PlainChat, _: str) -> None:
    """Begin a session."""
    await plain.chat.new()
    entered(plain)


async def sessions(plain: PlainChat, argument: str) -> None:
    """List the sessions used last."""
    from ktchat.widgets.formats import age, day

    limit = int(argument) if argument.isdecimal() else LISTED
    store = plain.chat.store
    found = await store.call(store.sessions, limit)
    plain.sessions = [(session.id, None) for session in found]
    plain.say("sessions, the last used first; /open N opens one" if found else "no sessions yet")
    for number, session in enumerate(found, 1):
        is_open = ", open" if session.id == plain.chat.conversation.id else ""
        when = f"{age(session.updated)}, {day(session.updated)}"
        turns = counted(session.turns, "turn")
        plain.voice.item(f"{number}. {session.shown_title}{is_open} · {turns} · {when}")


async def open_session(plain: PlainChat, argument: str) -> None:
    """Open a session by its number in the list, or by its id."""
    turn = None
    if argument.isdecimal() and 1 <= int(argument) <= len(plain.sessions):
        session, turn = plain.sessions[int(argument) - 1]
    elif argument.isdecimal() and len(argument) < 4:
        plain.say(f"there is no number {argument} in the list: /sessions shows it")
        return
    else:
        session = await plain.chat.store.call(plain.chat.store.find, argument)
    if session != plain.chat.conversation.id or plain.chat.read_only:
        await plain.chat.open(session)
        entered(plain)
    if turn is not None:
        _show_turn(plain, turn)
    elif session == plain.chat.conversation.id and not plain.chat.conversation.turns:
        plain.say("there is no message in it yet")


def _show_turn(plain: PlainChat, turn: str) -> None:
    from ktchat.store import tree

    conversation = plain.chat.conversation
    found = tree.find(conversation, turn)
    if found is None:
        plain.say("this turn does not exist any more")
        return
    if not any(shown is found for shown in conversation.turns):
        plain.chat.show_version(found)
    tell(plain, found)


async def rename(plain: PlainChat, argument: str) -> None:
    """Give the open session another title."""
    if not plain.chat.conversation.turns:
        plain.say("a session gets its title with its first message")
        return
    await plain.chat.rename(plain.chat.conversation.id, argument)
    plain.say(f"title: {plain.chat.conversation.shown_title}")


async def delete(plain: PlainChat, argument: str) -> None:
    """Delete a session by its number in the list; without one the open session."""
    chat = plain.chat
    session = chat.conversation.id
    if argument:
        if not argument.isdecimal() or not 1 <= int(argument) <= len(plain.sessions):
            plain.say(f"there is no number {argument} in the list: /sessions shows it")
            return
        session = plain.sessions[int(argument) - 1][0]
    elif not chat.conversation.turns:
        plain.say("there is nothing to delete")
        return
    was_open = session == chat.conversation.id
    await chat.delete(session)
    plain.deleted.append(session)
    plain.say("deleted; /undo brings it back, within ten seconds")
    if was_open:
        entered(plain)


async def undo(plain: PlainChat, _: str) -> None:
    """Bring back the session deleted last."""
    if not plain.deleted:
        plain.say("there is nothing to bring back")
        return
    session = plain.deleted.pop()
    await plain.chat.undo_delete(session)
    if await plain.chat.store.call(plain.chat.store.has, session):
        plain.sessions = [(session, None)]
        plain.say("the session is back; /open 1 opens it")
    else:
        plain.say("it is gone for good")


async def search(plain: PlainChat, argument: str) -> None:
    """Find words in all sessions."""
    store = plain.chat.store
    _list(plain, await store.call(store.search.find, argument))
    if behind := await store.call(store.search.behind):
        plain.voice.item(f"{counted(behind, 'older turn')} not in the index yet")


async def find(plain: PlainChat, argument: str) -> None:
    """Find words in the open session."""
    from ktchat.store.search import find_in

    _list(plain, find_in(plain.chat.conversation, argument))


def _list(plain: PlainChat, hits: list[Hit]) -> None:
    from ktchat.widgets.formats import day

    plain.sessions = [(hit.session, hit.turn) for hit in hits]
    if not hits:
        plain.say("nothing has these words")
        return
    plain.say(f"{counted(len(hits), 'place')}; /open N goes there")
    for number, hit in enumerate(hits, 1):
        who = "" if hit.turn is None else "you: " if hit.part == "prompt" else "reply: "
        text = f" · {who}{hit.line}" if hit.turn is not None else ""
        plain.voice.item(f"{number}. {hit.title}, {day(hit.updated)}{text}")


async def export(plain: PlainChat, argument: str) -> None:
    """Write the open session into a file."""
    from ktchat.common.files import free, name_for, write_text
    from ktchat.library.exporting import FORMATS, SUFFIXES, exported
    from ktchat.widgets.formats import short_path

    conversation = plain.chat.conversation
    if not conversation.turns:
        plain.say("there is nothing to export yet")
        return
    first, _, rest = argument.partition(" ")
    form, named = (first, rest.strip()) if first in FORMATS else ("", argument.strip())
    if not form:
        by_name = {".json": "json", ".html": "html", ".htm": "html"}
        form = by_name.get(Path(named).suffix.lower(), "markdown")
    proposed = free(Path("~") / name_for(conversation.shown_title, SUFFIXES[form]))
    path = Path(named or proposed)
    with contextlib.suppress(RuntimeError):  # no such home folder
        path = path.expanduser()
    if named and path.exists():
        plain.say(f"{short_path(str(path))} is there already: name another file")
        return
    await ask(lambda: write_text(path, exported(conversation, form)))
    plain.say(f"written: {short_path(str(path.absolute()))}")


async def take_in(plain: PlainChat, argument: str) -> None:
    """Take in sessions from a file."""
    from ktchat.store.imports import import_file

    path = Path(argument)
    with contextlib.suppress(RuntimeError):
        path = path.expanduser()
    done = await plain.chat.store.call(import_file, plain.chat.store, path)
    plain.say(done.words)
    for why in done.refused:
        plain.voice.item(why)


async def disk(plain: PlainChat, _: str) -> None:
    """What sessions take on the disk to be opened at once."""
    store, settings = plain.chat.store, plain.settings.settings
    used = await store.call(store.kv.used)
    budget = await store.call(store.kv.budget, settings.cache_budget)
    said = on_disk(used, budget if settings.disk_cache else None)
    plain.say(f"{said}; ktchat sessions cache --clear empties it")
