"""The sheet that opens when a message does not fit into the context: the ways to make room, with their figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ktchat.common.text import one_line
from ktchat.screens.once import LeftOnce
from ktchat.session.ways import Way
from ktchat.store.conversation import Turn
from ktchat.widgets.formats import counted
from ktchat.widgets.lines import styled

SHOWN_TURNS = 4
"""Of the turns that a way leaves unread, so many are named."""


class OverflowSheet(LeftOnce[Way | None], ModalScreen[Way | None]):
    """Answers with a way, or with None: all stays as it was."""

    AUTO_FOCUS = "OptionList"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("ctrl+a", "always", "Without asking", show=False),
    ]

    def __init__(
        self,
        title: str,
        figures: str,
        ways: Sequence[Way],
        late: Coroutine[Any, Any, list[Way]],
        type_on: Callable[[str], None],
    ) -> None:
        """`late` are the same ways with the figures that take a moment; `type_on` takes what is typed meanwhile."""
        super().__init__()
        self._title, self._figures = title, figures
        self._ways = list(ways)
        self._late = late
        self._type = type_on
        self._always = False
        self._typed = False  # and no Enter since

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content(self._title), classes="title")
            yield Static(Content(self._figures), id="overflow-figures")
            yield OptionList(*map(_option, self._ways), id="overflow-ways", compact=True)
            yield Static(id="overflow-turns")
            yield Static(id="overflow-hint", classes="hint")

    def on_mount(self) -> None:
        self._hint()
        self.run_worker(self._complete(), exit_on_error=False)

    async def _complete(self) -> None:
        """The figures that take a moment have come."""
        self._ways = await self._late
        ways = self.query_one(OptionList)
        for number, way in enumerate(self._ways):
            ways.replace_option_prompt_at_index(number, _prompt(way))
            if way.possible:
                ways.enable_option_at_index(number)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show which turns the way leaves unread."""
        room = self._ways[event.option_index].room
        self.query_one("#overflow-turns", Static).update(_turns(room.turns if room else ()))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the choice; an Enter that ends what was typed is none."""
        if self._typed:
            self._typed = False
            self._hint("Enter again chooses")
            return
        way = self._ways[event.option_index]
        always = self._always and way.kind in ("drop", "summarise")
        self.dismiss(dataclasses.replace(way, always=always))

    def on_key(self, event: events.Key) -> None:
        """The sheet comes while one may be typing: what is typed goes where it was meant to go."""
        if event.is_printable and event.character is not None:
            event.stop()
            event.prevent_default()
            self._typed = True
            self._type(event.character)

    def action_always(self) -> None:
        """Whether the choice holds from now on."""
        self._always = not self._always
        self._hint()

    def action_leave(self) -> None:
        """Leave all as it was."""
        self.dismiss(None)

    def _hint(self, enter: str = "Enter choose") -> None:
        words = "drop or summarise from now on without asking"
        mark = "✓" if self._always else " "
        hint = Content(f"{enter} · Esc leave all as it was\nCtrl+A [{mark}] {words}")
        self.query_one("#overflow-hint", Static).update(hint)


def _option(way: Way) -> Option:
    return Option(_prompt(way), id=way.kind, disabled=not way.possible)


def _prompt(way: Way) -> Content:
    return Content(way.title) + Content("\n  ") + styled(way.figures, "$foreground 70%")


def _turns(turns: Sequence[Turn]) -> Content:
    """The beginnings of some messages, a line each."""
    if not turns:
        return Content("")
    named = list(turns) if len(turns) <= SHOWN_TURNS else list(turns[: SHOWN_TURNS - 1])
    lines = [f"“{one_line(turn.prompt, 66)}”" for turn in named]
    if len(named) < len(turns):
        last = one_line(turns[-1].prompt, 40)
        lines.append(f"… and {counted(len(turns) - len(named), 'turn')} more, up to “{last}”")
    return styled("\n".join(lines), "$foreground 70%")
