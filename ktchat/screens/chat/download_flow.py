"""Downloads as the chat screen tells of them: how far they are, and which model arrived.

Knows the status line of the chat and when a model may be opened. The queue is `ktchat.library.downloads`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.common.threads import ask
from ktchat.library.downloads import stage_words, status_line, title

if TYPE_CHECKING:
    from engine.downloads.download import DownloadProgress
    from ktchat.app import KtchatApp

WAIT = 0.05
"""Seconds between two looks whether a model may be loaded now."""


class DownloadFlow:
    """From the queue to the chat."""

    def __init__(self, app: KtchatApp) -> None:
        self._app = app
        self.arrived: str | None = None
        """Path of the model that was downloaded last."""

    async def follow(self) -> None:
        """Say what becomes of the downloads, until the program ends."""
        downloads, status = self._app.downloads, self._app.chat_screen.status
        await ask(downloads.start)
        left = [state for state in downloads.states() if state.stage == "paused"]
        if left:
            names = title(left[0].key) if len(left) == 1 else f"{len(left)} downloads"
            status.say(f"{names}: not finished and paused. Ctrl+O, downloads goes on", "warning")
        last: dict[str, str] = {}
        async for progress in downloads.events():
            status.stand_behind(status_line(downloads.states()))
            if last.get(progress.key) != progress.stage:
                last[progress.key] = progress.stage
                self._tell(progress)

    def _tell(self, progress: DownloadProgress) -> None:
        status, name = self._app.chat_screen.status, title(progress.key)
        if progress.stage == "done":
            self.arrived = progress.path
            status.say(f"{name} is here", button=("open it", "app.open_arrived"), seconds=60.0)
        elif progress.stage == "failed":
            status.say(f"{name}: {stage_words(progress)}", "error")

    def open(self, path: str | None) -> None:
        """Open a model as soon as no other one is being loaded; None: stay with the present one."""
        self._app.chat_screen.prompt.focus()
        if path is not None:
            self._app.run_worker(self._open(path), group="open", exclusive=True,
                                 exit_on_error=False)  # fmt: skip

    async def _open(self, path: str) -> None:
        screen = self._app.chat_screen
        while screen.chat is None or screen.models.loading:
            await asyncio.sleep(WAIT)
        screen.models.load(path)
