"""The dialog that finds words in this conversation or in all sessions while they are typed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from ktchat.screens.dialogs.finding_dialog import FindingDialog
from ktchat.widgets.field import Field
from ktchat.widgets.formats import counted, day
from ktchat.widgets.lines import ends, styled

if TYPE_CHECKING:
    from ktchat.store.search import Hit

Find = Callable[[str, bool], Awaitable[tuple[Sequence["Hit"], str]]]
"""From words, and whether only this conversation is meant, to hits and what is to be said of them."""


class SearchDialog(FindingDialog["Hit"]):
    """Dismissed with the hit that was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "scope", "Elsewhere", show=False, priority=True)
    ]

    def __init__(self, find: Find, here: bool, only_all: bool = False) -> None:
        """`here`: begin in this conversation. `only_all`: there is no conversation to search."""
        other = "" if only_all else " · Tab here or everywhere"
        super().__init__(f"Enter go there · Up Down choose{other}")
        self._find, self._only_all = find, only_all
        self._here = here and not only_all

    def on_mount(self) -> None:
        self._say_scope()

    def action_scope(self) -> None:
        """This conversation, or all sessions."""
        if not self._only_all:
            self._here = not self._here
            self._say_scope()
            self.search(self.query_one(Field).value)

    async def look_for(self, words: str) -> tuple[Sequence[Hit], str]:
        """The hits where it is looked now."""
        hits, said = await self._find(words, self._here)
        if words.strip() and not said:
            said = counted(len(hits), "hit") if hits else "nothing has these words"
        return hits, said

    def options(self, found: Sequence[Hit], width: int) -> Iterable[Content]:
        """Two lines where a session begins, else one."""
        before = ["", *(hit.session if hit.turn else "" for hit in found)]
        return (
            self._option(hit, width, follows=hit.session == session)
            for hit, session in zip(found, before, strict=False)
        )

    def _say_scope(self) -> None:
        where = "this conversation" if self._here else "all sessions"
        self.query_one("#finding-title", Static).update(Content(f"Search in {where}"))

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
