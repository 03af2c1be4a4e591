"""Changing one setting: a number, a text, one of several choices. Each is answered with a value and for what it is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ktchat.common.precedence import SOURCES
from ktchat.common.text import one_line
from ktchat.screens.once import LeftOnce
from ktchat.screens.settings.rows import Row
from ktchat.session.choosing import Scope
from ktchat.widgets.chat.prompt import Prompt
from ktchat.widgets.field import Field
from ktchat.widgets.lines import styled

LOW = 20
"""Rows under which a box leaves its blank lines out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the person chose."""

    value: Any
    scope: Scope


class Editing(LeftOnce["Answer | None"], ModalScreen["Answer | None"]):
    """A box with a value in it; Tab says for what it is kept, Esc leaves all as it was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("tab", "scope(1)", "Where", show=False, priority=True),
        Binding("shift+tab", "scope(-1)", "Where", show=False, priority=True),
    ]
    HINT: ClassVar[str] = "Enter keep"

    def __init__(self, title: str, help_: str, scopes: Sequence[Scope], scope: Scope) -> None:
        super().__init__()
        self._title, self._help = title, help_
        self._scopes = tuple(scopes)
        self.scope: Scope = scope if scope in self._scopes else self._scopes[0]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(styled(self._title, "bold") + styled(f"  {self._help}", "$foreground 70%"))
            yield from self.parts()
            yield Static(id="setting-error")
            yield Static(id="setting-scope")
            yield Static(Content(f"{self.HINT} · Esc back"), classes="hint")

    def parts(self) -> Sequence[Widget]:
        """What is between the help and the scope."""
        return ()

    def on_mount(self) -> None:
        self._show_scope()

    def on_resize(self) -> None:
        self.set_class(self.app.size.height < LOW, "-low")

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.action_leave()

    def action_scope(self, step: int) -> None:
        """Keep it for something else."""
        at = self._scopes.index(self.scope) + step
        self.scope = self._scopes[at % len(self._scopes)]
        self._show_scope()

    def action_leave(self) -> None:
        """Leave all as it was."""
        self.dismiss(None)

    def answer(self, value: Any) -> None:
        """Leave with a value."""
        self.dismiss(Answer(value, self.scope))

    def complain(self, words: str) -> None:
        """Say why a value is not possible."""
        self.query_one("#setting-error", Static).update(styled(one_line(words), "$warning"))

    def _show_scope(self) -> None:
        words = Content("for ")
        for scope in self._scopes:
            name = SOURCES[scope].replace("everywhere", "all models")
            words += (
                styled(f"[{name}]", "bold")
                if scope == self.scope
                else styled(f" {name} ", "$foreground 60%")
            )
        if len(self._scopes) > 1:
            words += styled("  Tab", "$foreground 60%")
        self.query_one("#setting-scope", Static).update(words)


class NumberDialog(Editing):
    """A number, or a word for one."""

    AUTO_FOCUS = "Field"

    def __init__(self, row: Row, value: Any, scopes: Sequence[Scope], scope: Scope) -> None:
        super().__init__(row.title, row.help, scopes, scope)
        self._row, self._value = row, value

    def parts(self) -> Sequence[Widget]:
        shown = self._row.typed(self._row.shown(self._value))
        if any(shown == self._row.typed(name) for _, name in self._row.choices):
            shown = self._row.shown(self._value)
        return (
            Field(shown, compact=True, select_on_focus=True),
            Static(styled(self._row.range, "$foreground 60%")),
        )

    def on_input_submitted(self, event: Field.Submitted) -> None:
        """Answer, if that can be."""
        try:
            self.answer(self._row.parsed(event.value))
        except ValueError as error:
            self.complain(f"type {error}")


class ChoiceDialog(Editing):
    """One of several; `preview` is told of each as the cursor comes to it, and at the end of what stays."""

    AUTO_FOCUS = "OptionList"

    def __init__(
        self,
        row: Row,
        value: Any,
        scopes: Sequence[Scope],
        scope: Scope,
        preview: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(row.title, row.help, scopes, scope)
        self._values = [value for value, _ in row.choices]
        self._names = [name for _, name in row.choices]
        self._now, self._preview = value, preview

    def parts(self) -> Sequence[Widget]:
        return (OptionList(*(Option(Content(name)) for name in self._names), compact=True),)

    def on_mount(self) -> None:
        super().on_mount()
        if self._now in self._values:
            self.query_one(OptionList).highlighted = self._values.index(self._now)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show what it would be."""
        if self._preview is not None:
            self._preview(self._values[event.option_index])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the choice."""
        self.answer(self._values[event.option_index])

    def action_leave(self) -> None:
        if self._preview is not None:
            self._preview(self._now)
        self.dismiss(None)


class _Text(Prompt):
    """Keeps what it sends; an empty text is one too."""

    def action_send(self) -> None:
        self.post_message(self.Sent(self.draft))


class TextDialog(Editing):
    """A text of several lines."""

    AUTO_FOCUS = "Prompt"
    HINT = "Enter keep · Ctrl+J line"

    def __init__(self, row: Row, value: str, scopes: Sequence[Scope], scope: Scope) -> None:
        super().__init__(row.title, row.help, scopes, scope)
        self._value = value

    def parts(self) -> Sequence[Widget]:
        box = _Text("nothing")
        box.put(self._value)
        return (box,)

    def on_prompt_sent(self, message: Prompt.Sent) -> None:
        """Keep the text."""
        message.stop()
        self.answer(message.draft.text.strip())

    def on_prompt_page(self, message: Prompt.Page) -> None:
        """There is nothing else to scroll."""
        message.stop()
