"""The model manager: its tabs, and what stands around them.

It is dismissed with the path of the model to open. The chat screen loads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from engine.remote.address import is_address
from ktchat.library.downloads import percent
from ktchat.screens.models.catalogue_page import CataloguePage
from ktchat.screens.models.download_page import DownloadPage
from ktchat.screens.models.local_page import LocalPage
from ktchat.screens.models.model_screen import ModelScreen
from ktchat.screens.models.page import Page
from ktchat.screens.models.search_page import SearchPage
from ktchat.screens.models.server_page import ServerPage
from ktchat.widgets.models.plan_bars import PlanBars
from ktchat.widgets.tab_bar import TabBar
from ktchat.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from ktchat.context import AppContext

TABS = ("installed", "catalogue", "search", "downloads", "servers")
DOWNLOADS = TABS.index("downloads")
LOW = 20
"""Rows under which the plan has no place."""
WIDE = 140
"""Columns from which the plan stands beside the list."""


class ModelManager(ModelScreen):
    """Choose, get and keep models."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+o", "leave", "Leave", show=False),
        Binding("tab,right", "next_tab", show=False),
        Binding("shift+tab,left", "next_tab(-1)", show=False),
        *(Binding(str(n + 1), f"tab({n})", show=False) for n in range(len(TABS))),
    ]
    DEFAULT_CSS = """
    ModelManager > KeyBar { dock: bottom; }
    ModelManager > PlanBars { padding: 1 2 0 2; min-height: 8; max-height: 14; }
    ModelManager.-low > PlanBars { display: none; }
    ModelManager.-wide > PlanBars {
        dock: right; width: 58; max-height: 100%; padding: 3 2 0 2;
    }
    """

    def __init__(self, context: AppContext, current: str = "", tab: int = 0) -> None:
        super().__init__(context)
        remote = is_address(current)
        self.current = current if remote or not current else os.path.realpath(current)
        """Real path, or address, of the model that is loaded."""
        self._tab = tab or (TABS.index("servers") if remote else 0)
        self.tabs = TabBar("Models", TABS, noted="downloads")
        self.bars = PlanBars()
        self.local, self.catalogue = LocalPage(self), CataloguePage(self)
        self.search, self.downloads = SearchPage(self), DownloadPage(self)
        self.servers = ServerPage(self)
        self.pages: tuple[Page, ...] = (
            *(self.local, self.catalogue, self.search, self.downloads),
            self.servers,
        )

    def compose(self) -> ComposeResult:
        yield self.tabs
        yield from self.pages
        yield self.bars
        yield self.status
        yield self.key_bar
        yield TooSmall()

    def on_mount(self) -> None:
        for page in self.pages:
            page.display = False
        self.open_tab(self._tab)

    def on_resize(self) -> None:
        self.fit()
        self.set_class(self.app.size.height < LOW, "-low")
        self.set_class(self.app.size.width >= WIDE, "-wide")

    @property
    def page(self) -> Page:
        """The page that is open."""
        return self.pages[self._tab]

    def open_tab(self, number: int) -> None:
        """Open a tab."""
        self.page.display = False
        self._tab = number
        self.page.display = True
        self.key_bar.show(self.page.KEYS)
        self.show_tabs()
        self.page.begin()
        self.page.ready()
        self.show_plan()

    def show_plan(self) -> None:
        """Draw the plan of what is under the cursor."""
        plan, words = self.page.plan(self.page.table.key)
        self.bars.show(plan, words)

    def show_tabs(self) -> None:
        """Mark the open tab, and say behind the downloads how far they are."""
        states = [state for state in self.context.downloads.states() if state.is_active]
        self.tabs.show(self._tab, percent(states[0]) if states else "")

    def open_model(self, path: str) -> None:
        """Leave, and have a model opened."""
        self.dismiss(path)

    def pulling(self, key: str) -> None:
        """A download was queued: show it."""
        self.open_tab(DOWNLOADS)

    # Actions.

    def action_tab(self, number: int) -> None:
        """Open a tab."""
        if number != self._tab:
            self.open_tab(number)

    def action_next_tab(self, step: int = 1) -> None:
        """Open the next tab."""
        self.open_tab((self._tab + step) % len(TABS))

    def action_page(self, name: str) -> None:
        """A key of the page that was clicked."""
        action: Callable[[], object] | None = getattr(self.page, f"action_{name}", None)
        if action is not None:
            action()

    def action_leave(self) -> None:
        """Keep the model that is loaded."""
        self.dismiss(None)

    def action_nothing(self) -> None:
        """The arrow keys belong to the table."""
