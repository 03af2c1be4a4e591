"""The steps of the first start: their names, their keys, and the rows of models that are here."""

from __future__ import annotations

from enum import IntEnum

from textual.content import Content

from ktchat.library.local_models import LocalModel
from ktchat.widgets.models.model_cells import local_cells
from ktchat.widgets.models.model_table import Row

STEPS = ("This machine", "A model", "Ready")


class Step(IntEnum):
    """The steps, in their order."""

    MACHINE, MODEL, READY = range(3)


HERE, CATALOGUE = "on this machine", "to download: what runs best here comes first"

KEYS: dict[Step, tuple[tuple[str, str, str], ...]] = {
    Step.MACHINE: (
        ("Enter", "choose a model", "screen.forward"),
        ("g", "talk to the guide", "screen.guide"),
        ("Esc", "skip", "screen.skip"),
    ),
    Step.MODEL: (
        ("Enter", "download, open", "screen.forward"),
        ("i", "details", "screen.details"),
        ("/", "search", "screen.search"),
        ("o", "a file", "screen.path"),
        ("g", "guide", "screen.guide"),
        ("Esc", "skip", "screen.skip"),
    ),
    Step.READY: (
        ("Enter", "go on", "screen.forward"),
        ("Space", "pause, resume", "screen.pause"),
        ("Backspace", "another model", "screen.back"),
        ("Esc", "skip", "screen.skip"),
    ),
}


def here_row(local: LocalModel) -> Row:
    """A model on this machine, under the columns of the catalogue."""
    return Row(local.entry.path, (*local_cells(local), Content("")), HERE)
