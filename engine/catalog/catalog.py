"""The catalogue: mixture-of-experts models that people run at home, and which of them suit a machine.

It is read from assets/catalog.json and works without a network. Sizes that the file does not list
are computed by `engine.catalog.tensors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

from engine.catalog.numbers import Numbers, read_numbers
from engine.catalog.tensors import MIXES, group_sizes, spec_of
from engine.common.json_files import DataFileError, Fields, assets_folder, read_json
from engine.errors import RequestError
from engine.machine.types import Hardware
from engine.plan.memory_plan import MemoryPlan
from engine.plan.planner import make_plan
from engine.protocol import Auto, RuntimeName
from engine.spec.spec import ModelSpec

FORMAT = 1
SOURCES = ("listed", "computed")
STATUSES = ("seen", "unverified offline")

PREFERRED_BITS = 5.6
"""Bits a parameter of the quantisation that is chosen unasked, at most: Q4_K_M and its like."""
ENOUGH_BITS, BIT_WORTH = 4.3, 8.0
"""Below so many bits a parameter, quality falls by so much a bit. Our own estimate."""
USABLE_TOK_S = 3.0
"""Slower models are ranked behind those that can be talked with."""

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_MONTH = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class CatalogQuant:
    """One quantisation of a model. `source` says whether `bytes` is listed or computed."""

    name: str
    bytes: int
    source: Literal["listed", "computed"]


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One model of the catalogue."""

    id: str
    name: str
    repository: str
    """Where its GGUF files are, `owner/name`."""
    repository_seen: bool
    """The repository's page was looked up when the catalogue was made."""
    base: str
    licence: str
    released: str
    """The month in which the weights came out: `2026-04`."""
    quality: int
    """Our own order, 0 to 100."""
    parameters: int
    """As published."""
    good_at: str
    numbers: Numbers
    quants: tuple[CatalogQuant, ...]

    def quant(self, name: str) -> CatalogQuant:
        """The quantisation called `name`, in any case. Raises `RequestError`."""
        for quant in self.quants:
            if quant.name.lower() == name.lower():
                return quant
        raise RequestError(
            f"The catalogue has no {self.name} in {ascii(name)[1:-1]}",
            "",
            f"Use one of {', '.join(quant.name for quant in self.quants)}",
        )

    def spec(self, quant: str) -> ModelSpec:
        """What a plan needs to know of the model in this quantisation. Raises `RequestError`."""
        chosen = self.quant(quant)
        listed = chosen.bytes if chosen.source == "listed" else 0
        return spec_of(self.numbers, self.name, chosen.name, listed)

    def ref(self, quant: CatalogQuant) -> str:
        """What the hub knows it by: `owner/name:QUANT`."""
        return f"{self.repository}:{quant.name}"

    @property
    def runtime(self) -> RuntimeName:
        """What runs it."""
        return self.spec(self.quants[0].name).runtime

    def bits(self, quant: CatalogQuant) -> float:
        """Bits a parameter."""
        return 8 * quant.bytes / self.parameters

    @property
    def by_preference(self) -> list[CatalogQuant]:
        """Quantisations in the order they are tried: the best of about four bits, then smaller ones."""
        ordered = sorted(self.quants, key=lambda quant: -quant.bytes)
        usual = [quant for quant in ordered if self.bits(quant) <= PREFERRED_BITS]
        return usual or ordered[-1:]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A model of the catalogue on a machine, in the quantisation that suits it."""

    model: CatalogModel
    quant: CatalogQuant
    plan: MemoryPlan

    @property
    def quality(self) -> float:
        """The model's quality, less what a small quantisation loses."""
        lost = max(0.0, ENOUGH_BITS - self.model.bits(self.quant))
        return self.model.quality - BIT_WORTH * lost

    @property
    def usable(self) -> bool:
        """It fits, and can be talked with as far as its speed is known."""
        speed = self.plan.decode_tok_s
        return self.plan.fits and (speed is None or speed >= USABLE_TOK_S)


@cache
def load() -> tuple[CatalogModel, ...]:
    """The catalogue that comes with ktchat. Raises `DataFileError`."""
    return read(assets_folder() / "catalog.json")


def read(path: Path) -> tuple[CatalogModel, ...]:
    """A catalogue in a file. Raises `DataFileError`."""
    fields = read_json(path)
    if fields.whole("format", 0, 1 << 30) != FORMAT:
        raise fields.fault("format", f"is not {FORMAT}")
    models = tuple(_model(entry) for entry in fields.objects("models"))
    ids = [model.id for model in models]
    if len(set(ids)) != len(ids) or not ids:
        raise DataFileError(
            f"{fields.file} cannot be used", "Two models have one id, or none is there"
        )
    return models


def find(identifier: str) -> CatalogModel | None:
    """The model with this id or name, in any case."""
    wanted = identifier.lower()
    for model in load():
        if wanted in (model.id, model.name.lower()):
            return model
    return None


def choose(
    model: CatalogModel,
    hardware: Hardware,
    context: int | Auto | None = None,
    quant: str | None = None,
) -> Ranked:
    """The quantisation that suits the machine, or the one asked for, with its plan.

    The largest of about four bits that fits; if none does, the smallest. Raises `RequestError`.
    """
    candidates = [model.quant(quant)] if quant else model.by_preference
    for candidate in candidates:
        ranked = Ranked(model, candidate, make_plan(model.spec(candidate.name), hardware, context))
        if ranked.plan.fits:
            break
    return ranked


def rank(
    models: Iterable[CatalogModel], hardware: Hardware, context: int | Auto | None = None
) -> list[Ranked]:
    """Models by how well they suit a machine: usable ones by quality, slow ones, then the others.

    Models that do not fit come last, the one that lacks least first.
    """
    return sorted((choose(model, hardware, context) for model in models), key=_order)


def _order(ranked: Ranked) -> tuple[int, float, float]:
    if not ranked.plan.fits:
        return 2, ranked.plan.short_bytes, 0.0
    return int(not ranked.usable), -ranked.quality, -(ranked.plan.decode_tok_s or 0.0)


def _model(fields: Fields) -> CatalogModel:
    identifier = fields.text("id")
    if not _ID.fullmatch(identifier):
        raise fields.fault("id", "is not an id")
    repository = fields.text("repository")
    if not _REPOSITORY.fullmatch(repository):
        raise fields.fault("repository", "is not owner/name")
    status = fields.text("repository_status")
    if status not in STATUSES:
        raise fields.fault("repository_status", f"is not one of {', '.join(STATUSES)}")
    released = fields.text("released")
    if not _MONTH.fullmatch(released):
        raise fields.fault("released", "is not a month such as 2026-04")
    numbers = read_numbers(fields.object("numbers"))
    quants = tuple(_quant(quant, numbers) for quant in fields.objects("quants"))
    if not quants or len({quant.name for quant in quants}) != len(quants):
        raise fields.fault("quants", "is empty or names one twice")
    return CatalogModel(
        id=identifier,
        name=fields.text("name"),
        repository=repository,
        repository_seen=status == "seen",
        base=fields.text("base"),
        licence=fields.text("licence"),
        released=released,
        quality=fields.whole("quality", 0, 100),
        parameters=fields.whole("parameters", 1, 1 << 50),
        good_at=fields.text("good_at"),
        numbers=numbers,
        quants=quants,
    )


def _quant(fields: Fields, numbers: Numbers) -> CatalogQuant:
    name = fields.text("name")
    if name not in MIXES:
        raise fields.fault("name", f"is not one of {', '.join(MIXES)}")
    source = fields.text("size")
    if source not in SOURCES:
        raise fields.fault("size", f"is not one of {', '.join(SOURCES)}")
    if source == "listed":
        size = fields.whole("bytes", 1, 1 << 50)
    else:
        size = sum(group.bytes for group in group_sizes(numbers, name).values())
    return CatalogQuant(name, size, cast(Literal["listed", "computed"], source))
