"""The presets: applied, kept under a name, renamed, forgotten and brought back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import KtchatError
from ktchat.common import presets
from ktchat.common.presets import MAX_NAME, NONE, SHIPPED, Preset
from ktchat.common.setting_values import Values
from ktchat.common.text import one_line
from ktchat.screens.dialogs.dialogs import Question, RenameDialog
from ktchat.screens.settings.editing import Editing
from ktchat.widgets.lines import styled

if TYPE_CHECKING:
    from ktchat.session.choosing import Chooser


class PresetDialog(Editing):
    """Answered with a preset, and for what its values are kept."""

    AUTO_FOCUS = "OptionList"
    HINT = "Enter apply · s save as · F2 rename · Del forget · u undo"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "save", show=False),
        Binding("f2", "rename", show=False),
        Binding("delete,backspace", "forget", show=False),
        Binding("u", "undo", show=False),
    ]

    def __init__(self, chooser: Chooser) -> None:
        scopes = chooser.scopes("temperature")
        super().__init__("presets", "Sampling under a name.", scopes, scopes[0])
        self._chooser = chooser
        self._before: dict[str, Values | None] = {}  # what the last change replaced

    def parts(self) -> Sequence[Widget]:
        return (OptionList(compact=True, markup=False), Static(id="preset-words"))

    def on_mount(self) -> None:
        super().on_mount()
        held = presets.matching(self._presets, self._chooser.layers)
        self._show(held.name if held is not None else NONE.name)

    @property
    def _presets(self) -> list[Preset]:
        return presets.presets(self._chooser.settings.said.presets)

    @property
    def _chosen(self) -> Preset:
        return self._listed[self.query_one(OptionList).highlighted or 0]

    def _show(self, at: str) -> None:
        listed = self.query_one(OptionList)
        self._listed = [NONE, *self._presets]
        listed.set_options(Option(Content(one_line(p.name, MAX_NAME))) for p in self._listed)
        names = [preset.name for preset in self._listed]
        listed.highlighted = names.index(at) if at in names else 0

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Say what the preset is for."""
        preset = self._listed[event.option_index]
        parts = (styled(preset.words, "$foreground 85%"), styled(preset.help, "$foreground 60%"))
        words = Content("\n").join(part for part in parts if part)
        self.query_one("#preset-words", Static).update(words)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Apply it."""
        self.answer(self._listed[event.option_index])

    # The person's own.

    def action_save(self) -> None:
        """Keep what holds now under a name."""
        preset = self._chosen
        proposed = "" if preset.ours or preset is NONE else preset.name
        self._ask("Keep what holds now as", proposed, presets.held(self._chooser.layers), {})

    def action_rename(self) -> None:
        """Give a preset another name."""
        preset = self._chosen
        if self._is_own(preset):
            self._ask("Name of the preset", preset.name, preset.values, {preset.name: None})

    def action_forget(self) -> None:
        """Forget a preset; `u` brings it back."""
        preset = self._chosen
        if self._is_own(preset) and self._keep({preset.name: None}, NONE.name):
            self.complain(f"“{one_line(preset.name, MAX_NAME)}” is forgotten · u brings it back")

    def action_undo(self) -> None:
        """Take the last change of the presets back."""
        if self._before:
            self._keep(self._before, next(iter(self._before)))
            self.complain("as it was before")

    def _is_own(self, preset: Preset) -> bool:
        if preset.ours or preset is NONE:
            self.complain(f"“{preset.name}” comes with ktchat and stays")
        return not preset.ours and preset is not NONE

    def _ask(self, title: str, name: str, values: Values, gone: dict[str, Values | None]) -> None:
        def named(answer: str | None) -> None:
            new = one_line(answer or "", MAX_NAME)
            if not new or new in gone:
                return
            if new in {preset.name for preset in (NONE, *SHIPPED)}:
                self.complain(f"“{new}” is a name of ktchat's: choose another one")
            elif new in self._chooser.settings.said.presets:
                question = Question(
                    f"There is a preset “{new}” already.", "Put this one in its place"
                )

                def answered(yes: str | None) -> None:
                    if yes is not None:
                        self._keep({**gone, new: values}, new)

                self.app.push_screen(question, answered)
            else:
                self._keep({**gone, new: values}, new)

        self.app.push_screen(RenameDialog(name, title), named)

    def _keep(self, changes: dict[str, Values | None], at: str) -> bool:
        file = self._chooser.settings
        before = {name: file.said.presets.get(name) for name in changes}
        try:
            file.change_presets(changes)
        except KtchatError as error:
            self.complain(str(error))
            return False
        finally:
            self._before = before
            self._show(at)
        return True
