"""The tab of the catalogue: models that people run at home, what suits this machine best first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.common.text import one_line
from ktchat.library import versions
from ktchat.screens.models.page import NEXT, Host, Page, Shown
from ktchat.widgets.lines import styled
from ktchat.widgets.models.model_cells import context_cell, fit_cell, size_cell, speed_cell
from ktchat.widgets.models.model_table import Column, ModelTable, Row

if TYPE_CHECKING:
    from engine.catalog.catalog import Ranked
    from engine.plan.memory_plan import MemoryPlan

CATALOGUE_COLUMNS = (
    Column("model"),
    Column("quantisation", rank=4),
    Column("size", "right"),
    Column("fit"),
    Column("speed", "right", rank=1),
    Column("context", "right", rank=3),
    Column("quality", rank=2),
)


class CataloguePage(Page):
    """Models people run at home, what suits this machine first."""

    KEYS: ClassVar[tuple[Shown, ...]] = (
        ("Enter", "versions, download", "screen.page('choose')"),
        ("/", "search the hub", "screen.tab(2)"),
        *NEXT,
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "choose", show=False),
        Binding("slash", "screen.tab(2)", show=False),
    ]

    def __init__(self, host: Host) -> None:
        super().__init__(host, ModelTable(CATALOGUE_COLUMNS))
        self.ranked: dict[str, Ranked] = {}

    def compose(self) -> Iterator[ModelTable]:
        yield self.table

    def begin(self) -> None:
        """Rank the catalogue, once."""
        if not self.ranked:
            self.table.show([], "ranking the catalogue for this machine …")
            self.run_worker(self._rank(), group="rank", exclusive=True, exit_on_error=False)

    async def _rank(self) -> None:
        try:
            hardware = await self.host.machine()
            ranked = await ask(versions.catalogue, hardware)
        except KtchatError as error:
            self.table.show([], str(error))
            return
        self.ranked = {entry.model.id: entry for entry in ranked}
        self.table.show([catalogue_row(entry) for entry in ranked])
        self.host.show_plan()

    def plan(self, key: str) -> tuple[MemoryPlan | None, str]:
        entry = self.ranked.get(key)
        if entry is None:
            return None, ""
        model = entry.model
        return entry.plan, f"{model.good_at} · {model.licence} · released {model.released}"

    def on_model_table_chosen(self, message: ModelTable.Chosen) -> None:
        self.action_choose()

    def action_choose(self) -> None:
        """Choose a version of the model under the cursor."""
        self.run_worker(self._choose(), group="choose", exclusive=True, exit_on_error=False)

    async def _choose(self) -> None:
        entry = self.ranked.get(self.table.key)
        if entry is not None:
            hub = await ask(lambda: self.host.context.downloads.hub)
            hardware = await self.host.machine()
            self.host.choose(versions.CatalogueChoice(entry.model, hardware, hub))


def catalogue_row(entry: Ranked) -> Row:
    """A model of the catalogue in the version that suits the machine."""
    dots = max(1, min(5, round(entry.quality / 18)))
    quality = styled("●" * dots, "$accent") + styled("○" * (5 - dots), "$foreground 70%")
    return Row(
        key=entry.model.id,
        cells=(
            Content(one_line(entry.model.name, 60)),
            Content(entry.quant.name),
            size_cell(entry.quant.bytes, entry.quant.source == "computed"),
            fit_cell(entry.plan),
            speed_cell(entry.plan),
            context_cell(entry.plan),
            quality,
        ),
        dim=not entry.plan.fits,
    )
