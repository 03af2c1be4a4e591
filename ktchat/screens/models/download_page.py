"""The tab of downloads: how far they are; pausing, resuming and cancelling them.

It is drawn again several times a second while it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from engine.common.threads import ask
from engine.common.units import byte_size
from engine.downloads.stage import Stage
from ktchat.library.downloads import title
from ktchat.screens.dialogs.dialogs import Question
from ktchat.screens.models.page import NEXT, Host, Page, Shown
from ktchat.widgets.formats import short_path
from ktchat.widgets.models.download_row import COLUMNS, download_row
from ktchat.widgets.models.model_table import ModelTable

if TYPE_CHECKING:
    from engine.plan.memory_plan import MemoryPlan

INTERVAL = 0.25
NONE = "Nothing is being downloaded. Choose a model in the catalogue, or search the hub."


class DownloadPage(Page):
    """What is being downloaded, and what was."""

    KEYS: ClassVar[tuple[Shown, ...]] = (
        ("Space", "pause, resume", "screen.page('pause')"),
        ("x", "cancel", "screen.page('cancel')"),
        ("Enter", "open", "screen.page('open')"),
        ("c", "clear", "screen.page('clear')"),
        *NEXT,
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space,p,r", "pause", show=False),
        Binding("x,d,delete", "cancel", show=False),
        Binding("c", "clear", show=False),
    ]

    def __init__(self, host: Host) -> None:
        super().__init__(host, ModelTable(COLUMNS))

    def compose(self) -> Iterator[ModelTable]:
        yield self.table

    def on_mount(self) -> None:
        self.set_interval(INTERVAL, self.draw)

    def begin(self) -> None:
        """List what there is; the queue may have to be started."""
        self.run_worker(self._start(), group="start", exclusive=True, exit_on_error=False)

    async def _start(self) -> None:
        await ask(self.host.context.downloads.start)
        self.draw()

    def draw(self) -> None:
        """Show how far everything is."""
        if self.display:
            states = self.host.context.downloads.states()
            self.table.show([download_row(state) for state in states], NONE)
            self.host.show_plan()
        self.host.show_tabs()

    def plan(self, key: str) -> tuple[MemoryPlan | None, str]:
        state = self.host.context.downloads.state(key)
        if state is None or not key:
            return None, ""
        done = f"{byte_size(state.done)} of {byte_size(state.total)}"
        where = "in" if state.stage is Stage.DONE else "goes to"
        return None, f"{done} · {where} {short_path(state.path)}"

    def on_model_table_chosen(self, message: ModelTable.Chosen) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Open the model if it is here; else pause or resume."""
        state = self.host.context.downloads.state(self.table.key)
        if state is not None and state.stage is Stage.DONE:
            self.host.open_model(state.path)
        else:
            self.action_pause()

    def action_pause(self) -> None:
        """Pause a download, or go on with it."""
        downloads = self.host.context.downloads
        state = downloads.state(self.table.key)
        if state is None:
            return
        if state.is_active:
            downloads.pause(state.key)
        elif state.stage in (Stage.PAUSED, Stage.FAILED):
            downloads.resume(state.key)

    def action_cancel(self) -> None:
        """Stop a download and delete what came of it, after a question."""
        downloads = self.host.context.downloads
        state = downloads.state(self.table.key)
        if state is None or state.stage in (Stage.DONE, Stage.CANCELLED):
            return
        key = state.key
        question = f"Cancel {title(key)} and delete the {byte_size(state.done)} that came?"
        self.app.push_screen(
            Question(question, "Cancel and delete", "Go on"),
            lambda answer: downloads.cancel(key) if answer else None,
        )

    def action_clear(self) -> None:
        """Take finished downloads from the list; the models stay."""
        downloads = self.host.context.downloads
        for state in downloads.states():
            downloads.forget(state.key)
        self.draw()
