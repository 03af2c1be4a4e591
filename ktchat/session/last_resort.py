"""What could not be saved when the program ends, kept in files where there is room."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from engine.common.whole_files import write_whole
from ktchat.attachments.attachment import Draft
from ktchat.store.conversation import Conversation
from ktchat.store.export import to_json
from ktchat.store.saver import Saver


def keep_unsaved(saver: Saver) -> str:
    """Keep what `saver` could not write, beside its file or elsewhere; words on it, empty when all was saved."""
    conversations, drafts = saver.left()
    if not saver.store.keeps or not (conversations or any(drafts.values())):
        return ""
    folders = [saver.store.path.parent, *_home(), Path(tempfile.gettempdir())]
    place = keep_elsewhere(conversations, drafts, folders)
    why = f"Not everything was saved. {saver.error or 'The disk did not answer.'}"
    if place is None:
        return f"{why} It could be kept nowhere else."
    return f"{why} It is kept in {place}: ktchat sessions import reads it."


def _home() -> list[Path]:
    try:
        return [Path.home()]
    except RuntimeError:  # this user has none
        return []


def keep_elsewhere(
    conversations: Iterable[Conversation], drafts: Mapping[str, Draft], folders: Sequence[Path]
) -> Path | None:
    """Write conversations, as `ktchat sessions import` reads them, and unsent texts into a new folder in the first
    of `folders` that takes them all; that new folder, or None."""
    texts = {f"{conversation.id[:8]}.json": to_json(conversation) for conversation in conversations}
    texts |= {f"{session[:8]}.txt": draft.message for session, draft in drafts.items() if draft}
    if not texts:
        return None
    for folder in folders:
        try:
            place = Path(
                tempfile.mkdtemp(prefix=time.strftime("ktchat-unsaved-%Y%m%d-"), dir=folder)
            )
            for name, text in texts.items():
                write_whole(place / name, text.encode("utf-8", "replace"))
        except OSError:
            continue
        return place
    return None
