"""What the tabs of the model manager share: a table, its keys, the plan of the row under the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Vertical

from ktchat.widgets.models.model_table import ModelTable

if TYPE_CHECKING:
    from engine.plan.memory_plan import MemoryPlan
    from ktchat.screens.models.manager import ModelManager

Shown = tuple[str, str, str]
NEXT: tuple[Shown, ...] = (("Tab", "next", "screen.next_tab"), ("Esc", "back", "screen.leave"))


class Page(Vertical):
    """One tab: a table, its keys, and what is said of the row under the cursor."""

    DEFAULT_CSS = "Page { height: 1fr; width: 1fr; }"
    KEYS: ClassVar[tuple[Shown, ...]] = ()

    def __init__(self, host: ModelManager, table: ModelTable) -> None:
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
