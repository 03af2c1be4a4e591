"""`ktchat models info`: one model, be it a file here, one of the catalogue, or a repository.

A file and the catalogue need no network.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.common.cells import ljust
from engine.common.units import byte_size
from engine.errors import KtchatError
from engine.plan import report
from ktchat.cli import background, output
from ktchat.common import paths
from ktchat.common.settings import SettingsFile
from ktchat.common.text import one_line
from ktchat.library import local_models, plans, versions
from ktchat.library.mirrors import open_hub

if TYPE_CHECKING:
    from engine.catalog.catalog import CatalogModel
    from engine.hub.client import Hub, Repository
    from engine.hub.names import HubModel


def main(args: argparse.Namespace) -> int:
    """Print what is known of a model; returns the exit code."""
    from engine.catalog import catalog

    path = Path(args.spec).expanduser()
    if path.is_file():
        return _file(args, path)
    identifier, _, quant = args.spec.partition(":")
    model = catalog.find(identifier)
    return _catalogue(args, model, quant) if model is not None else _hub(args)


# A file.


def _file(args: argparse.Namespace, path: Path) -> int:
    from engine.downloads.integrity import record_of

    local = local_models.model_at(path, plans.machine(measure=False))
    record = record_of(path)
    checksum = record.checksum if record is not None else ""
    if args.json:
        plan = report.to_dict(local.plan) if local.plan is not None else None
        entry = dataclasses.asdict(local.entry)
        shown = {**entry, "opened": local.opened, "checksum": checksum, "plan": plan}
        output.line(json.dumps(shown, indent=2))
        return 1 if local.entry.error else 0
    entry_ = local.entry
    if entry_.error:
        output.complain(entry_.error)
        return 1
    kind = " · ".join(filter(None, (entry_.architecture, entry_.quantisation)))
    output.line(f"{entry_.name} · {kind} · {byte_size(entry_.size)}")
    output.line(one_line(f"{entry_.shown_path}  {checksum}".rstrip(), 1200))
    layers = SettingsFile(paths.settings_file()).layers(entry_.path)
    output.line(f"sampling: {layers.with_file(entry_.sampling).words}")
    for text in report.words(local.plan) if local.plan is not None else ():
        output.line(one_line(text, 400))
    return 0


# The catalogue.


def _catalogue(args: argparse.Namespace, model: CatalogModel, quant: str) -> int:
    from engine.catalog import catalog

    hardware = plans.machine(measure=False)
    chosen = catalog.choose(model, hardware, None, quant or None)
    quants = [catalog.choose(model, hardware, None, one.name) for one in model.quants]
    if args.json:
        versions = [
            {
                "name": ranked.quant.name,
                "size": ranked.quant.bytes,
                "computed": ranked.quant.source == "computed",
                "fit": ranked.plan.fit_words,
                "decode_tok_s": ranked.plan.decode_tok_s,
                "proposed": ranked.quant == chosen.quant,
            }
            for ranked in quants
        ]
        shown = {name: getattr(model, name) for name in _ABOUT}
        output.line(
            json.dumps({**shown, "models": versions, "plan": report.to_dict(chosen.plan)}, indent=2)
        )
        return 0
    output.line(f"{model.name} · {model.repository} · licence {model.licence}")
    output.line(f"{model.good_at} · released {model.released}")
    for ranked in quants:
        size = ("~" if ranked.quant.source == "computed" else "") + byte_size(ranked.quant.bytes)
        mark = "  proposed" if ranked.quant == chosen.quant else ""
        output.line(f"{ranked.quant.name:<16}  {size:>8}  {ranked.plan.fit_words}{mark}")
    for text in report.words(chosen.plan):
        output.line(one_line(text, 400))
    return 0


_ABOUT = ("id", "name", "repository", "base", "licence", "released", "good_at", "parameters")


# The hub.


def _hub(args: argparse.Namespace) -> int:
    from engine.hub.names import best, choose, note_of

    hub = open_hub(args.send_token)
    ref = hub.ref(args.spec)
    repository = background.run(lambda report: hub.repository(ref.repo, ref.revision))
    if ref.file or ref.quantisation:
        return _version(args, hub, choose(repository.models, ref))
    hardware = plans.machine(measure=False)
    proposed = best(repository.models, lambda model: versions.fits(model.size, hardware))
    if args.json:
        models = [
            {
                **_as_json(model),
                "fit": versions.rough_fit(model.size, hardware),
                "proposed": model is proposed,
            }
            for model in repository.models
        ]
        about = {k: v for k, v in dataclasses.asdict(repository).items() if k != "models"}
        output.line(json.dumps({**about, "models": models}, indent=2))
        return 0
    _print_about(repository)
    for model in repository.models:
        files = f"{len(model.files)} files" if len(model.files) > 1 else ""
        fit = versions.rough_fit(model.size, hardware)
        mark = "  proposed" if model is proposed else ""
        note = f"  {note_of(model.label)}".rstrip()
        label = one_line(model.label, 60)
        output.line(
            f"{ljust(label, 16)}  {byte_size(model.size):>8}  {ljust(files, 8)}  {fit}{mark}{note}"
        )
    if not repository.models:
        output.line("It has no GGUF model.")
    return 0


def _print_about(repository: Repository) -> None:
    licence = one_line(repository.licence, 40)
    about = [one_line(repository.architecture, 40), licence and f"licence {licence}"]
    about.append("gated" if repository.gated else "")
    output.line(" · ".join([repository.repo, *(text for text in about if text)]))


def _version(args: argparse.Namespace, hub: Hub, model: HubModel) -> int:
    fit = background.run(lambda report: _fit(hub, model))
    if args.json:
        output.line(json.dumps({**_as_json(model), "fit": fit}, indent=2))
        return 0
    output.line(f"{model.spec} · {byte_size(model.size)}")
    for file in model.files:
        output.line(f"{byte_size(file.size):>8}  {one_line(file.path, 200)}  {file.checksum}")
    for text in fit:
        output.line(text)
    return 0


def _fit(hub: Hub, model: HubModel) -> list[str]:
    """Whether a model fits this machine, in words; only headers are read."""
    try:
        plan = plans.plan_of(hub.spec(model), plans.machine(measure=False))
    except KtchatError as error:
        return [one_line(f"No plan: {error}", 1000)]
    return [one_line(text, 400) for text in report.words(plan)]


def _as_json(model: HubModel) -> dict[str, Any]:
    return {**dataclasses.asdict(model), "spec": model.spec, "size": model.size}
