"""The first start: what this machine is, which model suits it, downloading that model.

Every step can be left with Esc; the built-in guide answers meanwhile. The screen is dismissed with
the path of a model to open, or with None for the guide.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from engine.common.threads import ask
from engine.downloads.stage import Stage
from engine.errors import KtchatError
from ktchat.library import local_models, plans, versions
from ktchat.library.models import Source
from ktchat.screens.dialogs.path_dialog import ImportMode, PathDialog
from ktchat.screens.models.catalogue_page import CATALOGUE_COLUMNS, catalogue_row
from ktchat.screens.models.model_screen import ModelScreen
from ktchat.screens.models.setup_steps import CATALOGUE, KEYS, STEPS, Step, here_row
from ktchat.widgets.formats import short_path
from ktchat.widgets.models.arrival import Arrival
from ktchat.widgets.models.machine_lines import MachineLines
from ktchat.widgets.models.model_table import ModelTable, Row
from ktchat.widgets.models.plan_bars import PlanBars
from ktchat.widgets.tab_bar import TabBar
from ktchat.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from pathlib import Path

    from engine.catalog.catalog import Ranked
    from engine.hub.client import Hub
    from engine.machine.types import Hardware
    from ktchat.context import AppContext

INTERVAL = 0.25
ROOMY = 34
"""Rows from which the plan stands under the list."""
MOST_HERE = 20
"""Models of this machine, and as many of other programs, that are listed here; the manager has all."""


class SetupScreen(ModelScreen):
    """The wizard."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "forward", show=False),
        Binding("escape", "skip", show=False),
        Binding("backspace", "back", show=False),
        Binding("g", "guide", show=False),
        Binding("i", "details", show=False),
        Binding("o", "path", show=False),
        Binding("slash", "search", show=False),
        Binding("space", "pause", show=False),
        Binding("ctrl+o", "search", show=False),
    ]
    DEFAULT_CSS = """
    SetupScreen > KeyBar { dock: bottom; }
    SetupScreen > PlanBars { padding: 1 2 0 2; min-height: 8; }
    SetupScreen > ModelTable { padding: 1 0 0 0; }
    """

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        self.step = Step.MACHINE
        self.tabs = TabBar("ktchat", STEPS)
        self.lines, self.bars, self.progress = MachineLines(), PlanBars(), Arrival()
        self.table = ModelTable(CATALOGUE_COLUMNS)
        self.key = ""
        """The download that was begun here."""
        self._ranked: dict[str, Ranked] = {}
        self._here: dict[str, local_models.LocalModel] = {}

    def compose(self) -> ComposeResult:
        yield self.tabs
        yield self.lines
        yield self.table
        yield self.bars
        yield self.progress
        yield self.status
        yield self.key_bar
        yield TooSmall()

    def on_mount(self) -> None:
        self.go(Step.MACHINE)
        self.table.show([], "measuring this machine, then ranking models for it …")
        self.set_interval(INTERVAL, self._draw)
        self.run_worker(self._look(), group="look", exit_on_error=False)

    def on_resize(self) -> None:
        self.fit()
        self._place()

    def go(self, step: Step) -> None:
        """Show a step."""
        self.step = step
        self.tabs.show(step)
        self.key_bar.show(KEYS[step])
        self._place()
        if step == Step.MODEL:
            self.table.list.focus()
        else:
            self.set_focus(None)

    def _place(self) -> None:
        step, roomy = self.step, self.app.size.height >= ROOMY
        self.lines.display = step == Step.MACHINE or (
            step == Step.MODEL and self.app.size.height >= 20
        )
        self.lines.show_all(step == Step.MACHINE)
        self.table.display = step == Step.MODEL
        self.bars.display = step == Step.MODEL and roomy
        self.progress.display = step == Step.READY

    # Looking.

    async def _look(self) -> None:
        device = self.context.settings.load("").device
        self.lines.show(await ask(plans.machine, False, device=device), measuring=True)
        hardware = self._hardware = await ask(plans.machine, True, device=device)
        self.lines.show(hardware)
        try:
            ranked = await ask(versions.catalogue, hardware)
        except KtchatError as error:
            self.table.show([], str(error))
            return
        await self._look_here(hardware)
        self._ranked = {entry.model.id: entry for entry in ranked}
        self._fill()

    async def _look_here(self, hardware: Hardware) -> None:
        """Models that are here already: in the models folder, and those of other programs."""
        settings = self.context.settings.settings
        recent = settings.recent_models
        ours = await ask(lambda: list(islice(local_models.own_models(recent, hardware), MOST_HERE)))
        known = {os.path.realpath(one.entry.path) for one in ours}
        others = await ask(
            lambda: list(islice(local_models.foreign_models(hardware, known), MOST_HERE))
        )
        able = [one for one in (*ours, *others) if one.entry.source != Source.GUIDE]
        self._here = {one.entry.path: one for one in able if not one.entry.error}

    def _fill(self) -> None:
        rows = [here_row(local) for local in self._here.values()]
        group = CATALOGUE if rows else ""
        for entry in self._ranked.values():
            row = catalogue_row(entry)
            rows.append(Row(row.key, row.cells, group, None, row.marked, row.dim))
        at = None if self.table.key else rows[0].key if rows else None
        self.table.show(rows, "", at)

    def _draw(self) -> None:
        if self.step == Step.READY:
            self.progress.show(self.context.downloads.state(self.key))

    def on_model_table_moved(self, message: ModelTable.Moved) -> None:
        """Show the plan of the model under the cursor."""
        entry, local = self._ranked.get(message.key), self._here.get(message.key)
        if entry is not None:
            self.bars.show(entry.plan, f"{entry.model.good_at} · {entry.model.licence}")
        elif local is not None:
            self.bars.show(local.plan, short_path(local.entry.path))
        else:
            self.bars.show(None)

    def on_model_table_chosen(self, message: ModelTable.Chosen) -> None:
        local, entry = self._here.get(message.key), self._ranked.get(message.key)
        if local is not None:
            self.leave(local.entry.path)
        elif entry is not None and self._hardware is not None:
            self.run_worker(self._get(entry, self._hardware), group="get", exclusive=True,
                            exit_on_error=False)  # fmt: skip

    async def _get(self, entry: Ranked, hardware: Hardware) -> None:
        choice = versions.CatalogueChoice(entry.model, hardware, await self._hub())
        await ask(choice.open)
        self.pull(choice, choice.best)

    async def refused(self, choice: versions.Choice, error: KtchatError) -> None:
        await super().refused(choice, error)
        self.say(f"{error} Meanwhile g talks to the built-in guide, o opens a file.", "error")

    def pulling(self, key: str) -> None:
        self.key = key
        self._remember()
        self.go(Step.READY)
        self._draw()

    async def _hub(self) -> Hub:
        return await ask(lambda: self.context.downloads.hub)

    # Actions.

    def action_forward(self) -> None:
        """Go on; at the end open what came, or talk to the guide meanwhile."""
        if self.step == Step.MACHINE:
            self.go(Step.MODEL)
        elif self.step == Step.MODEL:
            self.table.list.action_select()
        else:
            state = self.context.downloads.state(self.key)
            self.leave(state.path if state is not None and state.stage is Stage.DONE else None)

    def action_skip(self) -> None:
        """Skip this step."""
        if self.step == Step.MACHINE:
            self.go(Step.MODEL)
        else:
            self.leave(None)

    def action_back(self) -> None:
        """The step before."""
        self.go(Step(max(Step.MACHINE, self.step - 1)))

    def action_tab(self, number: int) -> None:
        """A step that was clicked."""
        if number < Step.READY or self.key:
            self.go(Step(number))

    def action_guide(self) -> None:
        """Talk to the guide."""
        self.leave(None)

    def action_pause(self) -> None:
        """Pause the download, or go on with it."""
        state = self.context.downloads.state(self.key) if self.step == Step.READY else None
        if state is not None and state.is_active:
            self.context.downloads.pause(state.key)
        elif state is not None:
            self.context.downloads.resume(state.key)

    def action_details(self) -> None:
        """All versions of the model under the cursor, with their plans."""
        if self.step == Step.MODEL and self.table.key in self._ranked:
            self.run_worker(self._details(self.table.key), group="details", exit_on_error=False)

    async def _details(self, key: str) -> None:
        if self._hardware is not None:
            model, hub = self._ranked[key].model, await self._hub()
            self.choose(versions.CatalogueChoice(model, self._hardware, hub))

    def action_search(self) -> None:
        """The model manager, at the search."""
        from ktchat.screens.models.manager import TABS, ModelManager

        def answered(path: str | None) -> None:
            if path is not None:
                self.leave(path)

        self.app.push_screen(ModelManager(self.context, tab=TABS.index("search")), answered)

    def action_path(self) -> None:
        """Open a file."""

        def answered(answer: tuple[ImportMode, Path] | None) -> None:
            if answer is not None:
                self.leave(str(answer[1]))

        self.app.push_screen(PathDialog(), answered)

    def leave(self, path: str | None) -> None:
        """End the wizard; it does not come again by itself."""
        self._remember()
        self.dismiss(path)

    def _remember(self) -> None:
        self.context.remember(setup_done=True)
