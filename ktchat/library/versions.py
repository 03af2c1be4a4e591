"""Versions of one model to choose from: quantisations of the catalogue or of a hub repository.

Every function blocks, from tens of milliseconds to some seconds, and imports what it needs: call it
in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ktchat.common.text import one_line
from ktchat.library.plans import load_settings, plan_of

if TYPE_CHECKING:
    from engine.catalog.catalog import CatalogModel, Ranked
    from engine.hub.client import Hub
    from engine.hub.names import HubModel
    from engine.machine.types import Hardware
    from engine.plan.memory_plan import MemoryPlan

LOOKED_AT = 10
"""Repositories of a search whose files are listed, to say what fits."""
HEADROOM = 1 << 30
"""Bytes that a model needs beside its weights, roughly; for a first look at sizes alone."""


def catalogue(hardware: Hardware) -> list[Ranked]:
    """The catalogue, what suits the machine best first. Raises `KtchatError`."""
    from engine.catalog import catalog

    return catalog.rank(catalog.load(), hardware, load_settings().context)


def hub_name(name: str, hardware: Hardware) -> str:
    """What the hub calls a model: `ID` and `ID:QUANT` of the catalogue become `owner/repo:QUANT`, the
    quantisation that suits the machine where none is named; any other name stays as it is."""
    from engine.catalog import catalog

    identifier, _, quant = name.partition(":")
    model = catalog.find(identifier)
    if model is None:
        return name
    return model.ref(catalog.choose(model, hardware, None, quant or None).quant)


@dataclass(frozen=True, slots=True)
class Version:
    """One quantisation. Texts are safe to draw."""

    label: str
    size: int
    computed: bool = False
    """The size is computed, not listed."""
    files: int = 1

    @property
    def note(self) -> str:
        """What is said beside a version for ik_llama.cpp; nothing beside others."""
        from engine.hub.names import note_of

        return note_of(self.label)


class Choice(Protocol):
    """Versions of one model to choose from. `title` and `about` are safe to draw."""

    title: str
    about: str
    versions: list[Version]
    hardware: Hardware
    best: int
    """The version to propose."""

    def open(self) -> None:
        """Find the versions. Raises `KtchatError`."""

    def plan(self, number: int) -> MemoryPlan:
        """The plan for a version. Raises `KtchatError`."""

    def model(self, number: int) -> HubModel:
        """What is to be downloaded. Raises `KtchatError`."""


@dataclass
class CatalogueChoice:
    """The quantisations that the catalogue lists; known without a network."""

    model_: CatalogModel
    hardware: Hardware
    hub: Hub
    title: str = ""
    about: str = ""
    versions: list[Version] = field(default_factory=list)
    best: int = 0

    def open(self) -> None:
        """List the quantisations."""
        from engine.catalog.catalog import choose

        model = self.model_
        self.title = one_line(model.name, 80)
        self.about = one_line(f"{model.good_at} · licence {model.licence}", 200)
        quants = sorted(model.quants, key=lambda quant: quant.bytes)
        self.versions = [
            Version(quant.name, quant.bytes, quant.source == "computed") for quant in quants
        ]
        self.best = quants.index(choose(model, self.hardware).quant)

    def plan(self, number: int) -> MemoryPlan:
        """The plan for a quantisation."""
        return plan_of(self.model_.spec(self.versions[number].label), self.hardware)

    def model(self, number: int) -> HubModel:
        """Ask the hub for the files."""
        return self.hub.find(f"{self.model_.repository}:{self.versions[number].label}")


@dataclass
class HubChoice:
    """What a repository of the hub holds."""

    repo: str
    hardware: Hardware
    hub: Hub
    title: str = ""
    about: str = ""
    versions: list[Version] = field(default_factory=list)
    best: int = 0
    models: list[HubModel] = field(default_factory=list)

    def open(self) -> None:
        """Ask the hub what there is."""
        from engine.hub.errors import NoModelError
        from engine.hub.names import best

        self.title = one_line(self.repo, 80)
        found = self.hub.repository(self.repo)
        if not found.models:
            raise NoModelError(
                f"{self.repo} has no GGUF model", "Its files are of another kind", "Choose another"
            )
        parts = [one_line(found.architecture, 40)]
        parts.append(f"licence {one_line(found.licence, 40)}" if found.licence else "")
        parts.append("gated: its owner must grant access" if found.gated else "")
        self.about = " · ".join(filter(None, parts))
        self.models = list(found.models)
        self.versions = [
            Version(one_line(m.label, 60), m.size, files=len(m.files)) for m in self.models
        ]
        chosen = best(self.models, lambda m: fits(m.size, self.hardware))
        self.best = self.models.index(chosen) if chosen is not None else 0

    def plan(self, number: int) -> MemoryPlan:
        """Read the headers of a model's files, some MB, and plan it."""
        return plan_of(self.hub.spec(self.models[number]), self.hardware)

    def model(self, number: int) -> HubModel:
        """The files, as they were listed."""
        return self.models[number]


def fits(size: int, hardware: Hardware) -> bool:
    """Whether files of so many bytes fit, before their headers were read."""
    free = hardware.memory.available
    return not free or size + HEADROOM <= free


def rough_fit(size: int, hardware: Hardware) -> str:
    """Whether a file of so many bytes fits, in words, before its header was read."""
    from engine.common.units import byte_size
    from engine.machine.probes.software import gpu_obstacle

    short = size + HEADROOM - hardware.memory.available
    if not fits(size, hardware):
        return f"short by ~{byte_size(short)} of RAM"
    return "CPU" if gpu_obstacle(hardware) or not hardware.use_gpus else "fits"
