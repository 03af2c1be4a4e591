"""The dialog that finds words in this conversation or in all sessions while they are typed.

One search runs at a time; what was typed meanwhile is looked for next, so that keys never wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ktchat.screens.once import LeftOnce
from ktchat.widgets.field import Field
from ktchat.widgets.formats import counted, day
from ktchat.widgets.lines import ends, styled

if TYPE_CHECKING:
    from ktchat.store.search import Hit

Find = Callable[[str, bool], Awaitable[tuple[Sequence["Hit"], str]]]
"""From words, and whether only this conversation is meant, to hits and what is to be said of them."""


class SearchDialog(LeftOnce["Hit | None"], ModalScreen["Hit | None"]):
    """Dismissed with the hit that was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("tab", "scope", "Elsewhere", show=False, priority=True),
        Binding("down", "move(1)", "Next", show=False, priority=True),
        Binding("up", "move(-1)", "Before", show=False, priority=True),
        Binding("pagedown", "move(5)", "Page down", show=False, priority=True),
        Binding("pageup", "move(-5)", "Page up", show=False, priority=True),
    ]

    def __init__(self, find: Find, here: bool, only_all: bool = False) -> None:
        """`here`: begin in this conversation. `only_all`: there is no conversation to search."""
        super().__init__()
        self._find, self._only_all = find, only_all
        self._here = here and not only_all
        self._hits: Sequence[Hit] = ()
        self._wanted: tuple[str, bool] | None = None
        self._searching = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="box search"):
            yield Static(id="search-title", classes="title")
            yield Field(placeholder="words", compact=True)
            yield Static(id="search-words", classes="hint")
            yield OptionList(compact=True, markup=False)
            other = "" if self._only_all else " · Tab here or everywhere"
            yield Static(
                Content(f"Enter go there · Up Down choose{other} · Esc back"), classes="hint"
            )

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self._say_scope()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Look for what is there now."""
        self._search(event.value)

    def on_input_submitted(self) -> None:
        """Go to the hit under the cursor."""
        at = self.query_one(OptionList).highlighted
        if at is not None and at < len(self._hits):
            self.dismiss(self._hits[at])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A hit was clicked."""
        self.dismiss(self._hits[event.option_index])

    def action_move(self, step: int) -> None:
        """Another hit."""
        listed = self.query_one(OptionList)
        if self._hits:
            at = (listed.highlighted or 0) + step
            listed.highlighted = max(0, min(len(self._hits) - 1, at))

    def action_scope(self) -> None:
        """This conversation, or all sessions."""
        if not self._only_all:
            self._here = not self._here
            self._say_scope()
            self._search(self.query_one(Field).value)

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.dismiss(None)

    def on_resize(self) -> None:
        self._show()

    # Inside.

    def _say_scope(self) -> None:
        where = "this conversation" if self._here else "all sessions"
        self.query_one("#search-title", Static).update(Content(f"Search in {where}"))

    def _search(self, text: str) -> None:
        self._wanted = (text, self._here)
        if not self._searching:
            self._searching = True
            self.run_worker(self._work(), exit_on_error=False)

    async def _work(self) -> None:
        try:
            while self._wanted is not None:
                (text, here), self._wanted = self._wanted, None
                self._hits, said = await self._find(text, here)
                if text.strip() and not said:
                    said = (
                        counted(len(self._hits), "hit") if self._hits else "nothing has these words"
                    )
                self.query_one("#search-words", Static).update(Content(said))
                self._show()
        finally:
            self._searching = False

    def _show(self) -> None:
        listed = self.query_one(OptionList)
        width = max(20, listed.size.width - 2)
        before = ["", *(hit.session if hit.turn else "" for hit in self._hits)]
        options = (
            Option(self._option(hit, width, follows=hit.session == session))
            for hit, session in zip(self._hits, before, strict=False)
        )
        listed.set_options(options)
        listed.highlighted = 0 if self._hits else None

    def _option(self, hit: Hit, width: int, follows: bool) -> Content:
        """`follows`: the hit before is of the same session, whose title stands there."""
        when = styled(day(hit.updated), "$foreground 70%")
        if hit.turn is None:
            return ends(_marked(hit, width), when, width)
        who = "You: " if hit.part == "prompt" else "Reply: "
        lead = who if self._here else f"  {who}"
        line = styled(lead, "$foreground 70%") + _marked(hit, width - len(lead))
        if self._here or follows:
            return line
        return ends(styled(hit.title, "bold"), when, width) + Content("\n") + line


def _marked(hit: Hit, width: int) -> Content:
    """The line with the words marked, moved so that they are seen."""
    start, end = hit.at
    content = Content(hit.line).stylize("bold $accent", start, end)
    lead = 0 if end <= width - 4 else start - width // 3
    if lead > 0:
        content = Content("…") + content[lead:]
    return content.truncate(max(4, width), ellipsis=True)
