"""Downloads as the chat tells of them: how far they are, and which model arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.downloads.stage import Stage
from ktchat.library.downloads import stage_words, status_line, title

if TYPE_CHECKING:
    from engine.downloads.download import DownloadProgress
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.model_flow import ModelFlow


class DownloadFlow:
    """From the download queue to the chat."""

    def __init__(self, frame: Frame, activity: Activity, models: ModelFlow) -> None:
        self._frame = frame
        self._activity = activity
        self._models = models
        self.arrived: str | None = None
        """Path of the model that was downloaded last."""

    async def follow(self) -> None:
        """Say what becomes of the downloads, until the program ends."""
        downloads, status = self._activity.context.downloads, self._frame.status
        await ask(downloads.start)
        left = [state for state in downloads.states() if state.stage is Stage.PAUSED]
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
        status, name = self._frame.status, title(progress.key)
        if progress.stage is Stage.DONE:
            self.arrived = progress.path
            status.say(f"{name} is here", button=("open it", "app.open_arrived"), seconds=60.0)
        elif progress.stage is Stage.FAILED:
            status.say(f"{name}: {stage_words(progress)}", "error")

    def open(self, path: str | None) -> None:
        """Open a model as soon as no other one is being loaded; None: stay with the present one."""
        self._frame.prompt.focus()
        if path is not None:
            self._frame.app.run_worker(
                self._open(path), group="open", exclusive=True, exit_on_error=False
            )

    async def _open(self, path: str) -> None:
        activity = self._activity
        await activity.until(lambda: activity.context.chat is not None and not activity.loading)
        self._models.load(path)
