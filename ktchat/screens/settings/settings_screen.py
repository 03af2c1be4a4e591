"""The settings: every value, where it comes from, and what it means; changed at once.

The screen is dismissed with whether the model is to be loaded again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.errors import KtchatError
from ktchat.common import presets
from ktchat.common.precedence import SOURCES, Held
from ktchat.common.presets import NONE
from ktchat.common.text import one_line
from ktchat.screens.once import LeftOnce
from ktchat.screens.settings import editing
from ktchat.screens.settings.keys import KEYS, RELOAD
from ktchat.screens.settings.rows import ROWS, Row, with_choices
from ktchat.session.choosing import SCOPES, Chooser, Scope
from ktchat.themes import THEMES
from ktchat.widgets.bars import KeyBar, Status
from ktchat.widgets.lines import styled
from ktchat.widgets.models.model_table import Column, ModelTable
from ktchat.widgets.models.model_table import Row as TableRow
from ktchat.widgets.tab_bar import TabBar
from ktchat.widgets.too_small import TooSmall, is_too_small

if TYPE_CHECKING:
    from ktchat.context import AppContext

LOW = 20
"""Rows under which the help has two lines and the headings none."""
INTERVAL = 1.0
"""Seconds between looks at what holds: an edit of the file, a command, may change it."""


class SettingsScreen(LeftOnce[bool]):
    """Rows of settings."""

    AUTO_FOCUS = "Rows"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+l,ctrl+comma,q", "leave", "Leave", show=False),
        Binding("left,minus", "step(-1)", show=False),
        Binding("right,plus,space", "step(1)", show=False),
        Binding("delete,backspace", "reset", show=False),
        Binding("p", "presets", show=False),
        Binding("l", "load_again", show=False),
    ]
    DEFAULT_CSS = """
    SettingsScreen.-small > * { display: none; }
    SettingsScreen > #setting-words { height: 4; padding: 1 2 0 2; }
    SettingsScreen.-low > #setting-words { height: 2; padding: 0 2; }
    SettingsScreen.-low > TabBar { height: 1; }
    SettingsScreen.-low > ModelTable > .heading { display: none; }
    SettingsScreen > KeyBar { dock: bottom; }
    SettingsScreen > Status { padding: 0 2; }
    """

    def __init__(
        self,
        context: AppContext,
        model: str,
        outdated: Callable[[], tuple[str, ...]],
        changed: Callable[[], None],
        preview: Callable[[str], None],
        at: str = "",
    ) -> None:
        """`model`: path of the one that is there. `outdated`: the settings with which it is not loaded. `changed` is
        told that something was, `preview` shows a theme. `at`: a setting to begin with."""
        super().__init__()
        self.chooser = Chooser(context.settings, context.chat, model)
        self._outdated, self._changed = outdated, changed
        self._preview, self._at = preview, at
        self.table = ModelTable(
            (Column("setting", least=15), Column("value"), Column("from", rank=1))
        )
        self.status, self.key_bar = Status(), KeyBar(KEYS)
        self._bar = TabBar("Settings", (), numbered=False)
        self._words = Static(id="setting-words")

    def compose(self) -> ComposeResult:
        yield self._bar
        yield self.table
        yield self._words
        yield self.status
        yield self.key_bar
        yield TooSmall()

    def on_mount(self) -> None:
        self.draw(self._at or "temperature")
        self.set_interval(INTERVAL, self.draw)
        if self._at:
            self.call_after_refresh(self.action_edit)

    def on_resize(self) -> None:
        self.set_class(is_too_small(self.app.size), "-small")
        self.set_class(self.app.size.height < LOW, "-low")
        self.call_after_refresh(self.draw)

    # What is shown.

    def draw(self, at: str | None = None) -> None:
        """Show what holds now."""
        self.table.show([self._line(row) for row in ROWS], at=at)
        self._show_words()
        self.key_bar.show((RELOAD, *KEYS) if self._outdated() else KEYS)

    def _line(self, row: Row) -> TableRow:
        held = self._held(row)
        mine = held.source not in ("file", "built-in")
        value = self._row(row).shown(held.value) if held.value is not None else "no choice"
        cell = styled(one_line(value, 60), "bold" if mine else "")
        if row.name in self._outdated():
            cell += styled("  not yet: l", "$warning")
        group = "" if self.app.size.height < LOW else row.group
        source = styled(SOURCES[held.source], "" if mine else "$foreground 60%")
        return TableRow(row.name, (Content(row.title), cell, source), group, marked=mine)

    def _row(self, row: Row) -> Row:
        """The row with the choices that are known only now."""
        chat = self.chooser.chat
        if row.name == "think" and chat is not None and chat.loaded is not None:
            return with_choices(row, [(think, think) for think in chat.loaded.think])
        if row.kind == "theme":
            ours = [theme.name for theme in THEMES]
            others = sorted(self.app.available_themes.keys() - set(ours))
            return with_choices(row, [(name, name) for name in (*ours, *others)])
        return row

    def _held(self, row: Row) -> Held:
        if row.kind == "preset":
            preset = presets.matching(
                presets.presets(self.chooser.settings.said.presets), self.chooser.layers
            )
            return Held(preset.name if preset else "none", self.chooser.held("temperature").source)
        held = self.chooser.held(row.name)
        return Held(held.value or self.app.theme, held.source) if row.kind == "theme" else held

    def _show_words(self) -> None:
        """What the row under the cursor means, and all that is said of it."""
        row = self._chosen
        if row is None:
            return
        words = styled(row.help, "$foreground 80%")
        if row.reload:
            words += styled(" The model has to be loaded again for it.", "$foreground 60%")
        if row.kind != "preset":
            words = self._sources(row) + Content("\n") + words
        self._words.update(words)

    def _sources(self, row: Row) -> Content:
        """Everything that is said of a setting: `this session 0.2 · the model's file 0.6 · built in 0.7`."""
        known, held = self._row(row), self.chooser.held(row.name)
        words = Content("")
        for said in self.chooser.layers.said(row.name):
            value = held.value if row.name == "think" and said.source == "built-in" else said.value
            shown = known.shown(value) if value not in (None, "") else "none"
            part = f"{SOURCES[said.source]} {one_line(shown, 40)}"
            words += Content(" · " if words else "")
            words += styled(part, "$accent" if said.source == held.source else "$foreground 60%")
        return words

    @property
    def _chosen(self) -> Row | None:
        return next((row for row in ROWS if row.name == self.table.key), None)

    def on_model_table_moved(self, message: ModelTable.Moved) -> None:
        """Another row is under the cursor."""
        self._show_words()

    def on_model_table_chosen(self, message: ModelTable.Chosen) -> None:
        """Change it."""
        self.action_edit()

    # Changing.

    def action_edit(self) -> None:
        """Change the value under the cursor."""
        row = self._chosen
        if row is None:
            return
        if row.kind == "preset":
            self.action_presets()
            return
        known, held = self._row(row), self._held(row)
        where = (self.chooser.scopes(row.name), self._scope(row, held))
        dialog: editing.Editing
        if row.kind == "text":
            dialog = editing.TextDialog(known, held.value, *where)
        elif row.kind == "number":
            dialog = editing.NumberDialog(known, held.value, *where)
        elif known.choices:
            preview = self._preview if row.kind == "theme" else None
            dialog = editing.ChoiceDialog(known, held.value, *where, preview)
        else:
            self.status.say("the model's template offers no choice of thinking")
            return
        self.app.push_screen(dialog, partial(self._answered, row))

    def _answered(self, row: Row, answer: editing.Answer | None) -> None:
        if answer is not None:
            self._keep(row, answer.value, answer.scope)

    def _scope(self, row: Row, held: Held) -> Scope:
        """For what a change is kept: where the value is the person's already, else where such a one belongs."""
        scopes = self.chooser.scopes(row.name)
        own = next((scope for scope in SCOPES if scope == held.source), row.default)
        return own if own in scopes else scopes[0]

    def _keep(self, row: Row, value: Any, scope: Scope) -> None:
        gone: list[Scope] = []

        def choose() -> None:
            gone.extend(self.chooser.choose(row.name, value, scope))

        if not self._try(choose):
            return
        known, held = self._row(row), self.chooser.held(row.name)
        where = "everywhere" if scope == "everywhere" else f"for {SOURCES[scope]}"
        said = f"{row.title}: {one_line(known.shown(value), 60)} {where}"
        if gone:
            said += f"; what was set for {' and '.join(SOURCES[g] for g in gone)} is taken away"
        if held.source == "file" and held.value != value:
            said += f", but the model's file says {known.shown(held.value)} and goes before it"
            self.status.say(f"{said}: Tab in the box keeps it for this model", "warning")
        else:
            self.status.say(said)

    def action_step(self, direction: int) -> None:
        """The next value."""
        row = self._chosen
        if row is None:
            return
        held = self._held(row)
        value = self._row(row).stepped(held.value, direction)
        if value is None:
            self.status.say("Enter changes it")
        elif value != held.value:
            self._keep(row, value, self._scope(row, held))

    def action_reset(self) -> None:
        """Take away what the person chose of the row under the cursor."""
        row = self._chosen
        if row is None:
            return
        if row.kind == "preset":
            self._apply(editing.Answer(NONE, self.chooser.scopes("temperature")[0]))
            return
        before = self.chooser.held(row.name)
        if before.source in ("file", "built-in"):
            self.status.say(f"{row.title}: nothing of yours to take away")
        elif self._try(partial(self.chooser.reset, row.name)):
            now = self._held(row)
            shown = self._row(row).shown(now.value) if now.value is not None else "none"
            self.status.say(f"{row.title}: {one_line(shown, 60)} again ({SOURCES[now.source]})")

    def action_presets(self) -> None:
        """The presets."""
        from ktchat.screens.settings.preset_dialog import PresetDialog

        self.app.push_screen(PresetDialog(self.chooser), self._apply)

    def _apply(self, answer: editing.Answer | None) -> None:
        if answer is not None and self._try(
            partial(self.chooser.apply, answer.value.values, answer.scope)
        ):
            where = "everywhere" if answer.scope == "everywhere" else f"for {SOURCES[answer.scope]}"
            self.status.say(f"preset: {one_line(answer.value.name, 60)}, {where}")

    def _try(self, change: Callable[[], object]) -> bool:
        """Change something; False, and why, where that is not possible."""
        try:
            change()
        except KtchatError as error:
            self.status.say(str(error), "error")
            return False
        finally:
            self._changed()
            self.draw()
        return True

    # The way out.

    def action_load_again(self) -> None:
        """Load the model with the settings as they are."""
        if self._outdated():
            self.dismiss(True)
        else:
            self.status.say("the model is loaded as the settings say")

    def action_leave(self) -> None:
        """Back to the chat."""
        self.dismiss(False)
