"""The models on this machine, each with its plan: listed, looked up, deleted.

Every function blocks, from tens of milliseconds to some seconds, and imports what it needs: call it
in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import KtchatError
from ktchat.common import usage
from ktchat.common.paths import models_folder
from ktchat.library.models import ModelEntry, Source, describe, find_models
from ktchat.library.plans import plan_of_file

if TYPE_CHECKING:
    from engine.downloads.import_local import FoundModel
    from engine.machine.types import Hardware
    from engine.plan.memory_plan import MemoryPlan


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this machine. `plan` is None when its file cannot be read."""

    entry: ModelEntry
    plan: MemoryPlan | None = None
    opened: float = 0.0
    """When it was opened last; 0: not known."""
    program: str = ""
    """The other program whose folder it lies in; empty: it is ours."""
    found: FoundModel | None = None

    @property
    def deletable(self) -> bool:
        """Whether it lies in the models folder."""
        return self.entry.source == Source.FOLDER and not self.program


def own_models(recent: Sequence[str], hardware: Hardware) -> Iterator[LocalModel]:
    """The guide, the models folder, files opened before; each with its plan."""
    times = usage.opened()
    for path, source in find_models(recent):
        yield _local(path, source, hardware, times)


def foreign_models(hardware: Hardware, known: set[str]) -> Iterator[LocalModel]:
    """Models of other programs whose real paths are not in `known`."""
    from engine.downloads.import_local import find_models as find_foreign

    times = usage.opened()
    for found in find_foreign():
        if os.path.realpath(found.path) not in known:
            local = _local(str(found.path), Source.RECENT, hardware, times)
            yield LocalModel(local.entry, local.plan, local.opened, found.program, found)


def _local(path: str, source: Source, hardware: Hardware, times: dict[str, float]) -> LocalModel:
    entry = describe(path, source)
    plan = None
    if not entry.error:
        try:
            plan = plan_of_file(Path(path), hardware)
        except (KtchatError, OSError):
            plan = None
    return LocalModel(entry, plan, times.get(os.path.realpath(path), 0.0))


def model_at(path: Path, hardware: Hardware) -> LocalModel:
    """The model in a file."""
    return _local(str(path), Source.RECENT, hardware, usage.opened())


def delete(path: Path) -> int:
    """Delete a model of the models folder; bytes set free. Raises `KtchatError`."""
    from engine.downloads.integrity import remove, remove_empty_folders

    folder = models_folder()
    if folder.absolute() not in path.absolute().parents:
        raise KtchatError(
            "Nothing was deleted", "Only what lies in the models folder is", "Delete it yourself"
        )
    freed = remove(path)
    remove_empty_folders(path.parent, folder)
    return freed
