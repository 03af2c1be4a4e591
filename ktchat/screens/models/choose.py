"""The versions of one model, and how each runs on this machine.

The screen is dismissed with the number of the version to download, or with None.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.library import versions
from ktchat.screens.once import LeftOnce
from ktchat.widgets.bars import KeyBar, Status
from ktchat.widgets.lines import styled
from ktchat.widgets.models.model_cells import fit_cell, size_cell, speed_cell
from ktchat.widgets.models.model_table import Column, ModelTable, Row
from ktchat.widgets.models.plan_bars import PlanBars
from ktchat.widgets.tab_bar import TabBar

if TYPE_CHECKING:
    from engine.plan.memory_plan import MemoryPlan
    from ktchat.library.versions import Choice

PAUSE = 0.2
"""Seconds that the cursor rests on a version before its headers are read."""
COLUMNS = (
    Column("quantisation"),
    Column("size", "right"),
    Column("fit"),
    Column("speed", "right", rank=1),
    Column("files", "right", rank=2),
)
KEYS = (
    ("Enter", "download", "screen.accept"),
    ("Up Down", "walk", "screen.nothing"),
    ("Esc", "back", "screen.leave"),
)


class ChooseScreen(LeftOnce[int | None]):
    """Choose a version."""

    AUTO_FOCUS = "Rows"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", show=False)]
    DEFAULT_CSS = """
    ChooseScreen > .about { height: auto; padding: 0 2 1 2; color: $foreground 70%; }
    ChooseScreen > PlanBars { padding: 1 2 0 2; min-height: 8; }
    ChooseScreen > ModelTable { min-height: 4; }
    """

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self._choice = choice
        self._plans: dict[int, MemoryPlan | str] = {}
        self.table = ModelTable(COLUMNS)
        self.bars = PlanBars()
        self.status = Status()
        self._bar = TabBar("Download", ("which version",), numbered=False)
        self._about = Static(classes="about")

    def compose(self) -> ComposeResult:
        yield self._bar
        yield self._about
        yield self.table
        yield self.bars
        yield self.status
        yield KeyBar(KEYS)

    def on_mount(self) -> None:
        self.table.show([], "asking what versions there are …")
        self.run_worker(self._open(), group="open", exit_on_error=False)

    async def _open(self) -> None:
        choice = self._choice
        try:
            await ask(choice.open)
        except KtchatError as error:
            self.table.show([], str(error))
            return
        self._about.update(Content(choice.title) + styled(f"  {choice.about}", "$foreground 70%"))
        self._show(at=str(choice.best))
        if isinstance(choice, versions.CatalogueChoice):
            for number in range(len(choice.versions)):
                await self._plan(number)

    async def _plan(self, number: int) -> None:
        if number in self._plans:
            return
        try:
            self._plans[number] = await ask(self._choice.plan, number)
        except KtchatError as error:
            self._plans[number] = f"No plan: {error}"
        self._show()

    def _show(self, at: str | None = None) -> None:
        self.table.show([self._row(n) for n in range(len(self._choice.versions))], "", at)
        self._show_plan()

    def _row(self, number: int) -> Row:
        version, plan = self._choice.versions[number], self._plans.get(number)
        known = None if plan is None or isinstance(plan, str) else plan
        name = Content(version.label)
        if number == self._choice.best:
            name += styled("  suits this machine", "$accent")
        if version.note:
            name += styled(f"  {version.note}", "$text-muted")
        return Row(
            key=str(number),
            cells=(
                name,
                size_cell(version.size, version.computed),
                fit_cell(known, versions.rough_fit(version.size, self._choice.hardware)),
                speed_cell(known),
                Content(str(version.files) if version.files > 1 else ""),
            ),
        )

    def _show_plan(self) -> None:
        key = self.table.key
        plan = self._plans.get(int(key)) if key else None
        if isinstance(plan, str):
            self.bars.show(None, plan)
        elif plan is None and key:
            self.bars.show(None, "reading the header of the file …")
        else:
            self.bars.show(plan)

    # What the widgets say.

    def on_model_table_moved(self, message: ModelTable.Moved) -> None:
        self._show_plan()
        if message.key:
            self.run_worker(
                self._plan_soon(int(message.key)), group="plan", exclusive=True, exit_on_error=False
            )

    async def _plan_soon(self, number: int) -> None:
        if number not in self._plans and self._plans:
            await asyncio.sleep(PAUSE)
        await self._plan(number)

    def on_model_table_chosen(self, message: ModelTable.Chosen) -> None:
        self.dismiss(int(message.key))

    def action_accept(self) -> None:
        """Download what the cursor is on."""
        if self.table.key:
            self.dismiss(int(self.table.key))

    def action_leave(self) -> None:
        """Download nothing."""
        self.dismiss(None)

    def action_nothing(self) -> None:
        """The arrow keys belong to the table."""
