"""Sessions from files: our own JSON from another machine, and the exports of other programs.

Nothing that is there is overwritten: a session gets an id that follows from what is in it, so that importing a
file again changes nothing, and an export that has grown becomes another session.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ktchat.common.errors import SessionFileError, reason_of
from ktchat.common.text import one_line
from ktchat.store import tree
from ktchat.store.conversation import Conversation
from ktchat.store.foreign import READERS, MalformedError
from ktchat.store.message_tree import conversation_of
from ktchat.store.own_format import own_session
from ktchat.store.store import Store

MAX_BYTES = 512 << 20
MAX_SESSIONS = 50_000
NAMES = "ktchat, llama.cpp's web UI, Open WebUI and ChatGPT"


@dataclass(slots=True)
class Imported:
    """What became of a file."""

    sessions: list[str] = field(default_factory=list)
    """Ids of the new ones."""
    known: int = 0
    """Sessions that were there already."""
    refused: list[str] = field(default_factory=list)
    """Why others were left out, a line each, safe to draw."""

    @property
    def words(self) -> str:
        """In one line."""
        count = len(self.sessions)
        said = [f"{count} session{'' if count == 1 else 's'} imported"]
        said += [f"{self.known} there already"] if self.known else []
        said += [f"{len(self.refused)} left out: {self.refused[0]}"] if self.refused else []
        return " · ".join(said)


def import_file(store: Store, path: Path) -> Imported:
    """Put the sessions in a file into the store. Raises `SessionFileError` for a file that is none, and `StoreError`."""
    result = Imported()
    for number, data in enumerate(_sessions(_read(path)), 1):
        try:
            conversation = read_session(data)
        except MalformedError as error:
            result.refused.append(one_line(f"session {number}: {error}", 200))
            continue
        if not conversation.turns:
            result.refused.append(f"session {number}: it is empty")
        elif store.has(conversation.id):
            result.known += 1
        else:
            store.save_conversation(conversation)
            result.sessions.append(conversation.id)
    if not result.sessions and not result.known:
        why = result.refused[0] if result.refused else "There is no session in it"
        raise _no_session(path, why)
    return result


def read_session(data: object) -> Conversation:
    """One session of any of the formats. Raises `MalformedError`."""
    if not isinstance(data, dict):
        raise MalformedError("it is no object")
    if data.get("format") == "ktchat-session":
        return _identified(own_session(data))
    for key, _, read in READERS:
        if key in data:
            return _identified(conversation_of(read(data)))
    raise MalformedError(f"its format is not one of {NAMES}")


def _read(path: Path) -> object:
    try:
        if not path.is_file():
            raise _no_session(path, "It is no file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        why, todo = reason_of(error)
        raise SessionFileError(f"{one_line(str(path))} cannot be read", why, todo) from error
    if len(data) > MAX_BYTES:
        raise _no_session(path, f"It has more than {MAX_BYTES >> 20} MiB")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _no_session(path, f"It is no JSON: {one_line(str(error), 120)}") from error


def _sessions(data: object) -> Iterator[object]:
    if isinstance(data, list):
        yield from data[:MAX_SESSIONS]
    else:
        yield data


def _no_session(path: Path, why: str) -> SessionFileError:
    return SessionFileError(
        f"{one_line(path.name, 80)} cannot be imported", why, f"JSON of {NAMES} can be read"
    )


def _identified(conversation: Conversation) -> Conversation:
    """The same session with ids that follow from what is in it."""
    turns = tree.all_turns(conversation)
    places = {turn.id: place for place, turn in enumerate(turns)}
    content = [conversation.title, conversation.system, repr(conversation.created)]
    for turn in turns:
        parent = places.get(turn.parent or "", -1)
        content += [
            str(parent),
            turn.raw_prompt,
            turn.raw_thinking,
            turn.raw_reply,
            repr(turn.created),
            *(item.digest for item in turn.attachments),
        ]
    data = json.dumps(content, ensure_ascii=True).encode()
    conversation.id = hashlib.sha256(data).hexdigest()[:32]
    ids = {
        turn.id: hashlib.sha256(f"{conversation.id} {place}".encode()).hexdigest()[:32]
        for place, turn in enumerate(turns)
    }
    for turn in turns:
        turn.id, turn.parent = ids[turn.id], ids.get(turn.parent or "")
    return conversation
