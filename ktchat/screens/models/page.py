"""A tab of the model manager: a table, its keys, and the plan of the row under the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from textual.containers import Vertical

from ktchat.widgets.models.model_table import ModelTable

if TYPE_CHECKING:
    from engine.machine.types import Hardware
    from engine.plan.memory_plan import MemoryPlan
    from ktchat.context import AppContext
    from ktchat.library.versions import Choice

Shown = tuple[str, str, str]
NEXT: tuple[Shown, ...] = (("Tab", "next", "screen.next_tab"), ("Esc", "back", "screen.leave"))


class Host(Protocol):
    """The screen that shows the tabs, as they know it."""

    context: AppContext
    current: str
    """Real path of the model that is loaded."""

    def say(self, words: str, severity: str = "information") -> None:
        """Say something under the table."""

    def show_plan(self) -> None:
        """Draw the plan of the row under the cursor."""

    def show_tabs(self) -> None:
        """Say beside the tabs how far the downloads are."""

    async def machine(self) -> Hardware:
        """This machine."""

    def choose(self, choice: Choice) -> None:
        """Let the person choose a version, then download it."""

    def open_model(self, path: str) -> None:
        """Leave, and have a model opened."""


class Page(Vertical):
    """One tab: a table, its keys, and what is said of the row under the cursor."""

    DEFAULT_CSS = "Page { height: 1fr; width: 1fr; }"
    KEYS: ClassVar[tuple[Shown, ...]] = ()

    def __init__(self, host: Host, table: ModelTable) -> None:
        super().__init__()
        self.host, self.table = host, table

    def begin(self) -> None:
        """The page is opened, perhaps again."""

    def ready(self) -> None:
        """Put the cursor where the person goes on."""
        self.table.list.focus()

    def plan(self, key: str) -> tuple[MemoryPlan | None, str]:
        """What is drawn for the row `key`: its plan, and a line under it."""
        return None, ""

    def on_model_table_moved(self, message: ModelTable.Moved) -> None:
        """Another row is under the cursor: the screen shows its plan."""
        self.host.show_plan()
