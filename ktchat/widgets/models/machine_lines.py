"""This machine, one line a part: the first step of the wizard."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.content import Content
from textual.widget import Widget

from ktchat.common.text import one_line
from ktchat.widgets.formats import short_path
from ktchat.widgets.lines import indent, styled, wrap

if TYPE_CHECKING:
    from engine.machine.types import Hardware

LABEL = 6
ORDER = ("GPU", "RAM", "CPU", "Disk")
NEXT = (
    "Next comes a model that runs well here. The built-in guide is small and already answers "
    "questions about ktchat."
)
MAX_NOTES = 6


class MachineLines(Widget):
    """GPU, RAM, CPU and disk; with everything, also what could not be found out."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"label", "dim", "warning", "accent"}
    DEFAULT_CSS = """
    MachineLines { height: auto; width: 1fr; padding: 0 2; }
    MachineLines > .label { color: $foreground 70%; }
    MachineLines > .dim { color: $foreground 70%; }
    MachineLines > .warning { color: $warning; }
    MachineLines > .accent { color: $accent; }
    MachineLines:ansi > .dim, MachineLines:ansi > .label { text-style: dim; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._hardware: Hardware | None = None
        self._measuring = False
        self._all = True

    def show(self, hardware: Hardware, measuring: bool = False) -> None:
        """Show a machine; `measuring`: its speeds are not there yet."""
        self._hardware, self._measuring = hardware, measuring
        self.refresh(layout=True)

    def show_all(self, everything: bool) -> None:
        """Whether notes and missing things are shown too."""
        if everything != self._all:
            self._all = everything
            self.refresh(layout=True)

    def render(self) -> Content:
        width = self.content_size.width or 76
        if self._hardware is None:
            return styled("Looking at this machine …", ".dim")
        rows = self._parts(self._hardware, width)
        if self._all:
            rows += self._rest(self._hardware, width)
        return Content("\n").join(rows)

    def _parts(self, hardware: Hardware, width: int) -> list[Content]:
        from engine.machine import report as machine_report

        rows: list[Content] = []
        known = sorted(machine_report.lines(hardware), key=lambda line: ORDER.index(line[0]))
        for label, text in known:
            words = short_path(text)
            if self._measuring:
                words = words.replace(" · speed not measured", "")
            content = Content(words)
            if self._measuring and label == "RAM":
                content += styled(" · measuring its speed", ".accent")
            lead = styled(label.ljust(LABEL), ".label")
            if self._all:
                rows += [line.content for line in indent(wrap(content, width - LABEL), lead)]
            else:
                rows.append((lead + content).truncate(width, ellipsis=True))
        return rows

    def _rest(self, hardware: Hardware, width: int) -> list[Content]:
        rows = [Content(""), *(line.content for line in wrap(Content(NEXT), width)), Content("")]
        if hardware.gpus:
            from engine.machine.report import gpu_use

            words = one_line(gpu_use(hardware)[1], 300)
            rows += [line.content for line in wrap(styled(words, ".dim"), width)]
        texts = [] if self._measuring else list(hardware.notes)
        for text in texts[:MAX_NOTES]:
            rows += [line.content for line in wrap(styled(short_path(text), ".dim"), width)]
        for problem in hardware.problems[:MAX_NOTES]:
            rows += [
                line.content for line in wrap(styled(short_path(problem.what), ".warning"), width)
            ]
            if problem.fix:
                fix = styled(short_path(problem.fix), ".dim")
                rows += [line.content for line in indent(wrap(fix, width - 2), Content("  "))]
        return rows
