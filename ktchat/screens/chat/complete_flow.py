"""Completion in the prompt: commands behind a `/` at its beginning, files behind an `@`.

Files are looked for in a thread, one search at a time; what was typed meanwhile is looked for next.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.threads import ask
from ktchat.attachments.attachment import shown_name
from ktchat.widgets.chat.suggestions import Suggestion
from ktchat.widgets.formats import short_path

if TYPE_CHECKING:
    from ktchat.attachments.completing import Found, Index
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.attach_flow import AttachFlow
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.slash import Slash

AT = re.compile(r"(?:^|(?<=[\s(\"']))@([^\s@]{0,200})$")
"""What is completed as a path: it ends at the cursor."""


class CompleteFlow:
    """Looks at the text before the cursor and offers what could be meant."""

    def __init__(self, frame: Frame, activity: Activity, attach: AttachFlow, slash: Slash) -> None:
        self._frame, self._activity = frame, activity
        self._attach, self._slash = attach, slash
        self._wanted: str | None = None
        self._searching = False
        self._index: Index | None = None  # of the working folder, as it was when `@` was typed
        self._shown_for = ""

    def changed(self) -> None:
        """The text has changed."""
        prompt = self._frame.prompt
        if prompt.text == self._shown_for:
            return
        self._shown_for = prompt.text
        before = prompt.get_text_range((0, 0), prompt.cursor_location)
        listed = prompt.suggestions
        if listed is None:
            return
        if not self._activity.editing and before == prompt.text:
            offered = self._slash.offered(before)
            if offered is not None:
                self._wanted = None
                listed.show(offered, before)
                return
        found = AT.search(before)
        if found is None:
            self._wanted = None
            listed.text_changed(prompt.text)
        else:
            self._search(found[1])

    def _search(self, wanted: str) -> None:
        fresh = self._wanted is None
        self._wanted = wanted
        if fresh and not self._searching:
            self._index = None
        if not self._searching:
            self._searching = True
            self._frame.run_worker(self._work(), group="files", exit_on_error=False)

    async def _work(self) -> None:
        from ktchat.attachments import completing

        listed = self._frame.suggestions
        recent = self._frame.context.settings.settings.recent_files
        done: str | None = None
        try:
            while self._wanted is not None and self._wanted != done:
                done = self._wanted
                if self._index is None:
                    self._index = await ask(completing.Index)
                found = await ask(self._index.complete, done, recent)
                if self._wanted == done:
                    listed.show([self._row(item) for item in found], self._frame.prompt.text)
        finally:
            self._searching = False
            if self._wanted != done and self._wanted is not None:
                self._search(self._wanted)

    def _row(self, found: Found) -> Suggestion:
        take = partial(self._take, found.path)
        if found.recent:
            place = short_path(str(Path(found.path).parent))
            return Suggestion(shown_name(found.path), f"used before · {place}", take)
        complete = partial(self._go_into, found.typed) if found.is_folder else None
        words = "folder" if found.is_folder else ""
        return Suggestion(short_path(found.typed), words, take, complete)

    def _replace(self, text: str) -> None:
        """Put `text` in the place of what is being completed."""
        prompt = self._frame.prompt
        row, column = prompt.cursor_location
        found = AT.search(prompt.document.get_line(row)[:column])
        if found is not None:
            prompt.replace(text, (row, found.start()), (row, column))
        prompt.focus()

    def _take(self, path: str) -> None:
        self._wanted = None
        self._replace("")
        self._attach.attach(Path(path))

    def _go_into(self, typed: str) -> None:
        """Complete inside a folder."""
        self._replace(f"@{typed}")
