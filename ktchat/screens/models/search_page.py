"""The tab of the search: repositories of the hub with GGUF files, and which of them fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from engine.common.threads import ask
from engine.common.units import short_count
from engine.errors import KtchatError
from ktchat.common.text import one_line
from ktchat.library import versions
from ktchat.screens.models.page import NEXT, Host, Page, Shown
from ktchat.widgets.field import Field
from ktchat.widgets.formats import counted
from ktchat.widgets.lines import styled
from ktchat.widgets.models.model_cells import DIM, size_cell
from ktchat.widgets.models.model_table import Column, ModelTable, Row

if TYPE_CHECKING:
    from engine.hub.client import Hub, SearchHit
    from engine.plan.memory_plan import MemoryPlan


class SearchPage(Page):
    """Models on the hub."""

    KEYS: ClassVar[tuple[Shown, ...]] = (
        ("Enter", "search, versions", "screen.page('choose')"),
        ("Up Down", "walk", "screen.nothing"),
        ("/", "other words", "screen.page('words')"),
        *NEXT,
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "choose", show=False),
        Binding("slash", "words", show=False),
    ]
    DEFAULT_CSS = """
    SearchPage > Field { margin: 0 1 1 1; background: $surface; }
    """

    def __init__(self, host: Host) -> None:
        columns = (
            Column("repository"),
            Column("suits here", rank=2),
            Column("size", "right", rank=1),
            Column("fit"),
            Column("context", "right", rank=5),
            Column("downloads", "right", rank=4),
            Column("updated", rank=6),
        )
        super().__init__(host, ModelTable(columns))
        self.field = Field(placeholder="name of a model on the hub", compact=True)
        self.hits: dict[str, SearchHit] = {}
        self._looked: dict[str, versions.HubChoice | str] = {}
        self.asking = False
        """The hub is being asked for repositories."""

    def compose(self) -> Iterator[Widget]:
        yield self.field
        yield self.table

    def ready(self) -> None:
        (self.table.list if self.hits else self.field).focus()

    def begin(self) -> None:
        if not self.hits:
            self.table.show([], "Type a name and press Enter. Only repositories with GGUF files.")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        words = event.value.strip()
        if words:
            self.table.show([], "asking the hub …", "")
            self.hits = {}
            self.run_worker(self._search(words), group="search", exclusive=True,
                            exit_on_error=False)  # fmt: skip

    async def _search(self, words: str) -> None:
        self.asking = True
        try:
            hub = await ask(lambda: self.host.context.downloads.hub)
            hits = await ask(hub.search, words)
        except KtchatError as error:
            self.table.show([], str(error))
            return
        finally:
            self.asking = False
        self.hits, self._looked = {hit.repo: hit for hit in hits}, {}
        self._show()
        if hits:
            self.table.list.focus()
        await self._look(hub)

    async def _look(self, hub: Hub) -> None:
        """List the files of the first repositories, to say what fits."""
        hardware = await self.host.machine()
        for repo in list(self.hits)[: versions.LOOKED_AT]:
            choice = versions.HubChoice(repo, hardware, hub)
            try:
                await ask(choice.open)
                self._looked[repo] = choice
            except KtchatError as error:
                self._looked[repo] = one_line(str(error), 300)
            self._show()

    def _show(self) -> None:
        none = "The hub has no repository of that name with GGUF files."
        self.table.show([self._row(hit) for hit in self.hits.values()], none)
        self.host.show_plan()

    def _row(self, hit: SearchHit) -> Row:
        looked = self._looked.get(hit.repo)
        known = looked if isinstance(looked, versions.HubChoice) else None
        version = known.versions[known.best] if known is not None else None
        fit = ""
        if known is not None and version is not None:
            fit = versions.rough_fit(version.size, known.hardware)
            fit = " · ".join(filter(None, (fit, version.note)))
        elif hit.gated:
            fit = "gated"
        return Row(
            key=hit.repo,
            cells=(
                Content(one_line(hit.repo, 100)),
                Content(version.label if version is not None else ""),
                size_cell(version.size if version is not None else 0),
                styled(fit, "$warning" if fit.startswith("short") else DIM),
                styled(short_count(hit.context) if hit.context else "", DIM),
                styled(short_count(hit.downloads), DIM),
                styled(one_line(hit.updated, 10), DIM),
            ),
        )

    def plan(self, key: str) -> tuple[MemoryPlan | None, str]:
        looked = self._looked.get(key)
        if isinstance(looked, str):
            return None, looked
        if looked is not None:
            return (
                None,
                f"{looked.about} · {counted(len(looked.versions), 'version')}, Enter shows which",
            )
        return None, ""

    def on_model_table_chosen(self, message: ModelTable.Chosen) -> None:
        self.action_choose()

    def action_choose(self) -> None:
        """Choose a version in the repository under the cursor."""
        self.run_worker(self._choose(), group="choose", exclusive=True, exit_on_error=False)

    async def _choose(self) -> None:
        repo = self.table.key
        if repo:
            hub = await ask(lambda: self.host.context.downloads.hub)
            self.host.choose(versions.HubChoice(repo, await self.host.machine(), hub))

    def action_words(self) -> None:
        """Back to the words of the search."""
        self.field.focus()

    def on_key(self, event: events.Key) -> None:
        """The arrow keys go between the words and what was found."""
        if event.key == "down" and self.field.has_focus and self.hits:
            event.stop()
            self.table.list.focus()
        elif event.key == "up" and self.table.list.has_focus and not self.table.list.highlighted:
            event.stop()
            self.field.focus()
