"""Sessions as files, from the chat screen: the open one exported, others imported."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.widgets.formats import short_path

if TYPE_CHECKING:
    from ktchat.context import AppContext
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.session_listing import SessionListing


class FileFlow:
    """Export and import."""

    def __init__(self, frame: Frame, context: AppContext, listing: SessionListing) -> None:
        self._frame, self._context, self._listing = frame, context, listing

    def export(self, form: str) -> None:
        """Ask where to, and write the open session there."""
        from ktchat.common.files import free, name_for
        from ktchat.library.exporting import SUFFIXES
        from ktchat.screens.dialogs.file_dialog import FileDialog

        chat = self._context.chat
        if chat is None or not chat.conversation.turns:
            self._frame.status.say("there is nothing to export yet")
            return
        suffix = SUFFIXES[form]
        proposed = free(Path("~") / name_for(chat.conversation.shown_title, suffix))
        dialog = FileDialog(f"Export as {form}", proposed, suffix, new=True)
        self._frame.app.push_screen(
            dialog, lambda path: self._run(self._export(form, path)) if path else None
        )

    def take_in(self) -> None:
        """Ask for a file of sessions, and import it."""
        from ktchat.screens.dialogs.file_dialog import FileDialog
        from ktchat.store.imports import NAMES

        dialog = FileDialog("Import sessions", "~/", ".json", new=False, note=f"JSON of {NAMES}")
        self._frame.app.push_screen(
            dialog, lambda path: self._run(self._import(path)) if path else None
        )

    # Inside.

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._frame.run_worker(work, group="files", exit_on_error=False)

    async def _export(self, form: str, path: Path) -> None:
        from ktchat.common.files import write_text
        from ktchat.library.exporting import exported

        chat, status = self._context.chat, self._frame.status
        if chat is None:
            return
        conversation = chat.conversation
        try:
            await ask(lambda: write_text(path, exported(conversation, form)))
        except KtchatError as error:
            status.say(str(error), "error")
        else:
            status.say(f"written: {short_path(str(path))}", seconds=15.0)

    async def _import(self, path: Path) -> None:
        from ktchat.store.imports import import_file

        chat, status = self._context.chat, self._frame.status
        if chat is None:
            return
        status.say(f"importing {short_path(path.name)}", seconds=600.0)
        try:
            done = await chat.store.call(import_file, chat.store, path)
        except KtchatError as error:
            status.say(str(error), "error")
        else:
            status.say(done.words, "warning" if done.refused else "information", seconds=30.0)
        await self._listing.refresh()
