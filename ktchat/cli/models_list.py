"""`ktchat models list`: models here, those of other programs, and the catalogue.

It needs no network.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

from engine.common.cells import ljust, rjust
from engine.common.units import byte_size
from ktchat.cli import output
from ktchat.common import paths
from ktchat.common.settings import SettingsFile
from ktchat.common.text import one_line
from ktchat.library import local_models, plans, versions
from ktchat.library.models import ModelEntry, Source

if TYPE_CHECKING:
    from engine.catalog.catalog import Ranked
    from engine.downloads.download import Download
    from engine.plan.memory_plan import MemoryPlan
    from ktchat.library.local_models import LocalModel


def main(args: argparse.Namespace) -> int:
    """Print one of the lists; returns the exit code."""
    if args.others:
        return _others(args)
    return _catalogue(args) if args.catalogue else _here(args)


def unfinished() -> list[Download]:
    """Downloads that were begun, measured."""
    folder = paths.models_folder()
    if not any(folder.rglob("*.download.json")):
        return []
    from engine.downloads import manifest
    from engine.downloads.download import Download
    from engine.hub.access import HubAccess

    downloads = [Download(HubAccess(), m.model, folder) for m in manifest.unfinished(folder)]
    for download in downloads:
        download.measure()
    return downloads


def local_as_json(local: LocalModel) -> dict[str, Any]:
    """A model on this machine, with what its plan says and when it was opened (seconds; 0: never)."""
    return {**dataclasses.asdict(local.entry), "opened": local.opened, **_plan_as_json(local.plan)}


def _here(args: argparse.Namespace) -> int:
    recent = SettingsFile(paths.settings_file()).settings.recent_models
    models = list(local_models.own_models(recent, plans.machine(measure=False)))
    begun = unfinished()
    if args.json:
        shown = [local_as_json(local) for local in models]
        output.line(json.dumps(shown + [_begun_as_json(download) for download in begun], indent=2))
        return 0
    for local in models:
        output.line(_line(local))
    for download in begun:
        size = f"{byte_size(download.progress().done)} of {byte_size(download.model.size)}"
        output.line(f"unfinished: {download.key}  {size}  ktchat models pull {download.key}")
    if not models and not begun:
        output.line(f"No models. Put GGUF files into {paths.models_folder()}")
    return 0


def _line(local: LocalModel) -> str:
    entry = local.entry
    if entry.error:
        return f"{ljust(entry.name, 32)}  broken: {entry.error}  {entry.shown_path}"
    used = time.strftime("%Y-%m-%d", time.localtime(local.opened)) if local.opened else ""
    return (
        f"{ljust(entry.name, 32)}  {entry.quantisation:<8}  {byte_size(entry.size):>8}"
        f"  {_plan_columns(local.plan)}  {used:<10}  {entry.shown_path}"
    )


def _begun_as_json(download: Download) -> dict[str, Any]:
    entry = ModelEntry(
        path=str(download.paths[0]),
        source=Source.FOLDER,
        name=download.key,
        quantisation=download.model.quantisation,
        size=download.model.size,
    )
    done = download.progress().done
    return {**dataclasses.asdict(entry), "source": "unfinished", "done": done}


def _catalogue(args: argparse.Namespace) -> int:
    ranked = versions.catalogue(plans.machine(measure=False))
    if args.json:
        output.line(json.dumps([_ranked_as_json(entry) for entry in ranked], indent=2))
        return 0
    for entry in ranked:
        about = "~" if entry.quant.source == "computed" else ""
        size = about + byte_size(entry.quant.bytes)
        output.line(
            f"{entry.model.id:<27}  {entry.quant.name:<10}  {size:>8}  {_plan_columns(entry.plan)}"
            f"  {one_line(entry.model.good_at, 100)}"
        )
    return 0


def _ranked_as_json(entry: Ranked) -> dict[str, Any]:
    model, quant = entry.model, entry.quant
    return {
        "id": model.id,
        "name": model.name,
        "spec": model.ref(quant),
        "licence": model.licence,
        "good_at": model.good_at,
        "quality": round(entry.quality, 1),
        "quantisation": quant.name,
        "size": quant.bytes,
        "computed": quant.source == "computed",
        **_plan_as_json(entry.plan),
    }


def _plan_columns(plan: MemoryPlan | None) -> str:
    """Fit, speed and context, each in its column."""
    from engine.common.units import rate, short_count

    if plan is None:
        return f"{'':<26}  {'':>13}  {'':>6}"
    speed = rate(plan.decode_tok_s, plan.measured) if plan.decode_tok_s is not None else ""
    return f"{ljust(plan.fit_words, 26)}  {rjust(speed, 13)}  {short_count(plan.context) if plan.fits else '':>6}"


def _plan_as_json(plan: MemoryPlan | None) -> dict[str, Any]:
    if plan is None:
        return {"fit": "", "context": 0, "decode_tok_s": None, "measured": False}
    return {
        "fit": plan.fit_words,
        "context": plan.context,
        "decode_tok_s": plan.decode_tok_s,
        "measured": plan.measured,
    }


def _others(args: argparse.Namespace) -> int:
    from engine.downloads.import_local import find_models as find_others

    found = find_others()
    if args.json:
        entries = [{**dataclasses.asdict(model), "path": str(model.path)} for model in found]
        output.line(json.dumps(entries, indent=2))
        return 0
    for model in found:
        name, path = one_line(model.name, 60), one_line(str(model.path), 1000)
        output.line(f"{model.program:<12}  {byte_size(model.size):>8}  {ljust(name, 40)}  {path}")
    if not found:
        output.line("No models of LM Studio, Ollama, llama.cpp or the Hugging Face cache.")
    return 0
