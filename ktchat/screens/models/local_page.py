"""The tab of models on this machine: opening, checking, deleting and importing them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from engine.common.threads import ask
from engine.common.units import byte_size
from engine.errors import KtchatError
from ktchat.common.text import one_line
from ktchat.library import local_models
from ktchat.library.local_models import LocalModel
from ktchat.library.models import Source
from ktchat.screens.dialogs.dialogs import Details, Question
from ktchat.screens.dialogs.path_dialog import ImportMode, PathDialog
from ktchat.screens.models.model_details import Check, StoppedError, details
from ktchat.screens.models.page import NEXT, Host, Page, Shown
from ktchat.widgets.formats import clock, short_path
from ktchat.widgets.lines import styled
from ktchat.widgets.models.model_cells import DIM, local_cells
from ktchat.widgets.models.model_table import Column, ModelTable, Row

if TYPE_CHECKING:
    from engine.plan.memory_plan import MemoryPlan


class LocalPage(Page):
    """Models on this machine: ours, files opened before, and those of other programs."""

    KEYS: ClassVar[tuple[Shown, ...]] = (
        ("Enter", "open", "screen.page('open')"),
        ("v", "verify", "screen.page('verify')"),
        ("d", "delete", "screen.page('delete')"),
        ("o", "a file", "screen.page('path')"),
        ("i", "details", "screen.page('details')"),
        *NEXT,
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "verify", show=False),
        Binding("d,delete", "delete", show=False),
        Binding("o,slash", "path", show=False),
        Binding("a", "take_in", show=False),
        Binding("i", "details", show=False),
    ]

    def __init__(self, host: Host) -> None:
        columns = (
            Column("model"),
            Column("quantisation", rank=3),
            Column("size", "right"),
            Column("fit"),
            Column("speed", "right", rank=1),
            Column("context", "right", rank=4),
            Column("last used", "right", rank=2),
        )
        super().__init__(host, ModelTable(columns))
        self.models: dict[str, LocalModel] = {}
        self._checking: Check | None = None

    def compose(self) -> Iterator[ModelTable]:
        yield self.table

    # The list.

    def begin(self) -> None:
        """List the models again."""
        if not self.models:
            self.table.show([], "looking at the models on this machine …")
        self.run_worker(self._list(), group="list", exclusive=True, exit_on_error=False)

    async def _list(self) -> None:
        hardware = await self.host.machine()
        recent = self.host.context.settings.settings.recent_models
        found: dict[str, LocalModel] = {}
        ours = local_models.own_models(recent, hardware)
        while (local := await ask(next, ours, None)) is not None:
            found[local.entry.path] = local
            self.models = {**self.models, **found} if self.models else dict(found)
            self._show()
        known = {os.path.realpath(path) for path in found}
        foreign = local_models.foreign_models(hardware, known)
        while (local := await ask(next, foreign, None)) is not None:
            found[local.entry.path] = local
        self.models = found
        self._show()

    def _show(self, at: str | None = None) -> None:
        rows = [self._row(local) for local in self.models.values()]
        rows.sort(key=lambda row: _GROUPS.index(row.group))
        where = one_line(str(self.host.context.downloads.folder), 200)
        none = f"No models yet. Download one from the catalogue, or put GGUF files into {where}"
        self.table.show(rows, none, at)
        self.host.show_plan()

    def _row(self, local: LocalModel) -> Row:
        entry = local.entry
        loaded = self.host.current and os.path.realpath(entry.path) == self.host.current
        return Row(
            key=entry.path,
            cells=(
                *local_cells(local),
                styled(clock(local.opened) if local.opened else "", DIM),
            ),
            group=_FOREIGN if local.program else _OURS,
            below=styled(entry.error, "$warning") if entry.error else None,
            marked=bool(loaded),
            dim=bool(entry.error),
        )

    def plan(self, key: str) -> tuple[MemoryPlan | None, str]:
        local = self.models.get(key)
        if local is None:
            return None, ""
        where = "built in" if local.entry.source == Source.GUIDE else short_path(local.entry.path)
        return local.plan, where

    @property
    def chosen(self) -> LocalModel | None:
        """The model under the cursor."""
        return self.models.get(self.table.key)

    # Actions.

    def on_model_table_chosen(self, message: ModelTable.Chosen) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Open the model under the cursor."""
        local = self.chosen
        if local is None:
            return
        if local.entry.error:
            self.host.say(local.entry.error, "warning")
        else:
            self.host.open_model(local.entry.path)

    def action_path(self) -> None:
        """Name a file, to open it or to take it in."""
        self.app.push_screen(PathDialog(), self._path_named)

    def _path_named(self, answer: tuple[ImportMode, Path] | None) -> None:
        if answer is None:
            return
        mode, path = answer
        if mode is ImportMode.OPEN:
            self.host.open_model(str(path))
        else:
            self.run_worker(
                self._take(path, mode is ImportMode.MOVE), group="take", exit_on_error=False
            )

    def action_take_in(self) -> None:
        """Link another program's model into the models folder."""
        local = self.chosen
        if local is None or local.found is None:
            self.host.say("a links a model of another program; for a file of yours press o")
            return
        found = local.found
        self.run_worker(
            self._take(found.path, False, found.name, found.checksum),
            group="take",
            exit_on_error=False,
        )

    async def _take(self, path: Path, move: bool, name: str = "", checksum: str = "") -> None:
        from engine.downloads.import_local import import_model

        folder = self.host.context.downloads.folder
        try:
            done = await ask(import_model, path, folder, move, name, checksum)
        except KtchatError as error:
            self.host.say(str(error), "error")
            return
        self.host.say(f"{done.path.name} was {done.mode} into the models folder")
        self.begin()

    def action_delete(self) -> None:
        """Delete the model under the cursor, after a question."""
        local = self.chosen
        if local is None:
            return
        name, entry = local.entry.name, local.entry
        if os.path.realpath(entry.path) == self.host.current:
            self.host.say(f"{name} is loaded: open another model first", "warning")
        elif entry.source == Source.GUIDE:
            self.host.say("the built-in guide stays: it weighs little", "warning")
        elif not local.deletable:
            where = local.program or "outside the models folder"
            self.host.say(f"{name} belongs to {where}: ktchat only reads it", "warning")
        else:
            question = f"Delete {name} {entry.quantisation}, {byte_size(entry.size)}?"
            self.app.push_screen(
                Question(question, "Delete it"), lambda answer: self._delete(answer, entry.path)
            )

    def _delete(self, answer: str | None, path: str) -> None:
        if answer is not None:
            self.run_worker(self._delete_now(path), group="delete", exit_on_error=False)

    async def _delete_now(self, path: str) -> None:
        name = self.models[path].entry.name
        try:
            freed = await ask(local_models.delete, Path(path))
        except KtchatError as error:
            self.host.say(str(error), "error")
            return
        self.models.pop(path, None)
        self._show()
        self.host.say(f"{name} was deleted: {byte_size(freed)} are free again")
        self.begin()

    def action_verify(self) -> None:
        """Compare the model's bytes with its checksum; again: stop that."""
        if self._checking is not None:
            self._checking.stopped = True
            return
        local = self.chosen
        if local is not None:
            self.run_worker(self._check(local), group="verify", exit_on_error=False)

    async def _check(self, local: LocalModel) -> None:
        from engine.downloads.integrity import check_files, record_of

        path, name = Path(local.entry.path), local.entry.name
        check = self._checking = Check()
        timer = self.set_interval(0.2, lambda: self.host.say(f"{name}: {check.words}"))
        known = record_of(path) is not None
        try:
            folder = None if local.program else self.host.context.downloads.folder
            parts = await ask(check_files, path, True, check.report, folder)
        except StoppedError:
            self.host.say(f"{name} was not checked to the end")
        except KtchatError as error:
            self.host.say(str(error), "error")
        else:
            sha = parts[0].checksum.partition(":")[2][:12]
            words = "is intact" if known else "had no checksum; it has one from now on"
            self.host.say(f"{name} {words} · {len(parts)} files · {sha} …")
        finally:
            timer.stop()
            self._checking = None

    def action_details(self) -> None:
        """Everything about the model under the cursor."""
        local = self.chosen
        if local is not None:
            rows = details(local, self.host.context.settings.layers(local.entry.path))
            self.app.push_screen(Details(local.entry.name, rows))

    def on_unmount(self) -> None:
        if self._checking is not None:
            self._checking.stopped = True


_OURS, _FOREIGN = "", "of other programs · Enter opens it there · a links it into the models folder"
_GROUPS = (_OURS, _FOREIGN)
