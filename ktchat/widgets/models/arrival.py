"""One download by itself, and what can be done meanwhile: the last step of the wizard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from engine.common.units import byte_size
from engine.downloads.stage import Stage
from ktchat.library.downloads import percent, stage_words, title
from ktchat.widgets.models.download_row import bar

if TYPE_CHECKING:
    from engine.downloads.download import DownloadProgress


class Arrival(Widget):
    """How far the model is."""

    DEFAULT_CSS = "Arrival { height: 1fr; padding: 1 2; }"

    def __init__(self) -> None:
        super().__init__()
        self._state: DownloadProgress | None = None

    def show(self, state: DownloadProgress | None) -> None:
        """Show how far a download is."""
        if state != self._state:
            self._state = state
            self.refresh()

    def render(self) -> Content:
        state, dim = self._state, "$foreground 70%"
        if state is None:
            return Content.styled("The download was cancelled.", dim)
        amount = f"{byte_size(state.done)} of {byte_size(state.total)}"
        style = {"failed": "$error", "waiting": "$warning", "done": "$success"}.get(
            state.stage, dim
        )
        cells = min(60, max(10, self.content_size.width - 8))
        if state.stage is Stage.DONE:
            after = "Enter opens it."
        else:
            after = (
                "Enter takes you to the guide meanwhile: it answers questions about ktchat.\n"
                "The download goes on while you chat; a line above the prompt says how far it is."
            )
        return Content("\n").join(
            [
                Content.styled(title(state.key), "bold"),
                bar(state, cells) + Content(f"  {percent(state)}"),
                Content.styled(amount, dim) + Content(" · ") + Content.styled(stage_words(state), style),
                Content(""),
                Content.styled(after, dim),
            ]
        )  # fmt: skip
