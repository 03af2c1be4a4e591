"""The details of a model on this machine in words, and the progress of its checksum."""

from __future__ import annotations

from engine.common.units import byte_size
from engine.plan.report import words as plan_lines
from ktchat.common.precedence import Layers
from ktchat.library.local_models import LocalModel
from ktchat.library.models import Source
from ktchat.widgets.formats import short_path


class StoppedError(Exception):
    """The person stopped the check."""


class Check:
    """A checksum being computed in a thread."""

    def __init__(self) -> None:
        self.stopped = False
        self.words = "checking"

    def report(self, done: int, total: int) -> None:
        """Called in the thread."""
        if self.stopped:
            raise StoppedError
        self.words = f"checking {100 * done // max(1, total)} % of {byte_size(total)} · v stops"


def details(local: LocalModel, layers: Layers) -> list[tuple[str, str]]:
    """Everything known of a model, a name and a text a line; not safe to draw."""
    from engine.common.units import byte_size

    entry, plan = local.entry, local.plan
    rows = [
        ("file", "built in" if entry.source == Source.GUIDE else short_path(entry.path, 1000)),
        ("size", byte_size(entry.size)),
        ("architecture", entry.architecture),
        ("quantisation", entry.quantisation),
        ("runs on", "our engine" if entry.runtime == "native" else entry.runtime),
        ("sampling", "" if entry.error else layers.with_file(entry.sampling).words),
        ("belongs to", local.program),
        ("fault", entry.error),
    ]
    rows += [("plan", text) for text in plan_lines(plan)] if plan is not None else []
    for device in plan.devices if plan is not None else ():
        rows += [
            (f"{device.name}: {part.label}", byte_size(part.bytes)) for part in device.segments
        ]
    return [(name, text) for name, text in rows if text]
