"""`ktchat plan`: whether a model fits a machine, what goes where, and how fast it will be."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import KtchatError
from engine.plan import report
from ktchat.cli import background, load_options, output
from ktchat.common import paths
from ktchat.common.errors import UsageError
from ktchat.common.precedence import Layers
from ktchat.common.settings import Settings, SettingsFile, load_command
from ktchat.common.text import one_line
from ktchat.library import versions
from ktchat.library.mirrors import open_hub

if TYPE_CHECKING:
    from engine.machine.types import Hardware
    from engine.plan.memory_plan import MemoryPlan
    from engine.protocol import Load
    from engine.spec.spec import ModelSpec

MAX_WIDTH = 100


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat plan`."""
    parser = subparsers.add_parser(
        "plan",
        help="whether a model fits this machine, and how fast it will be",
        description="Says whether a model fits, what goes where, and how fast it will be. Nothing is"
        " downloaded: of a model on the hub only the headers are read. Exit code 1: it does not fit.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "plan_model",
        metavar="MODEL",
        nargs="?",
        help="a file, a model of the catalogue (ID or ID:QUANT), or owner/repo[:QUANT] on the hub",
    )
    load_options.add(parser, None)
    parser.add_argument(
        "--profile", metavar="NAME|FILE", help="another machine; `--profile list` names those known"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    load_options.add_send_token(parser)


def main(args: argparse.Namespace) -> int:
    """Plan and print; 0 when the model fits, 1 when it does not."""
    from engine.machine import profiles
    from engine.plan.planner import make_plan

    if args.profile == "list":
        for name in profiles.names():
            output.line(name)
        return 0
    if not args.plan_model:
        raise UsageError("plan needs a MODEL", "", "See ktchat plan --help")
    machine = hardware(args.profile)
    spec = _spec(
        args.plan_model, machine, None if args.ctx == "auto" else args.ctx, args.send_token
    )
    load = _load(args)
    plan = make_plan(spec, machine, load.context, load.device, load.kv)
    if args.json:
        output.line(json.dumps(report.to_dict(plan), indent=2))
    else:
        _print(plan)
    if plan.fits:
        return 0
    output.complain(one_line(f"{plan.model} does not fit: {plan.fit_words}", 400))
    return 1


def _load(args: argparse.Namespace) -> Load:
    """How the model would be loaded here, as the settings say too; on another machine as asked for."""
    said = load_options.overrides(args)
    if args.profile:
        return load_command(args.plan_model, Layers(command=said.values), Settings())
    return SettingsFile(paths.settings_file(), said).load(args.plan_model)


def hardware(profile: str | None) -> Hardware:
    """This machine, or the one that a profile describes."""
    from engine.machine import profiles
    from engine.machine.probe import probe

    if profile is not None:
        return profiles.load(profile)
    return background.run(lambda report: probe(paths.models_folder()))


def _print(plan: MemoryPlan) -> None:
    for words in report.words(plan):
        command = plan.gpu_fix and words.endswith(plan.gpu_fix)  # in one piece, to be copied
        (output.line if command else output.wrapped)(one_line(words, 400))
    output.line()
    for bar in report.bars(plan, min(MAX_WIDTH, shutil.get_terminal_size((80, 24)).columns)):
        output.line(bar if bar.startswith(" ") else one_line(bar, 400))


def _spec(name: str, machine: Hardware, context: int | None, send_token: bool | None) -> ModelSpec:
    """The spec that a path, an id of the catalogue, or a repository stands for."""
    from engine.catalog import catalog

    path = Path(name).expanduser()
    if path.is_file() or name.endswith(".gguf"):
        return _local(path)
    identifier, _, quant = name.partition(":")
    model = catalog.find(identifier)
    if model is not None:
        ranked = catalog.choose(model, machine, context, quant or None)
        return model.spec(ranked.quant.name)
    if "/" in name:
        return _remote(name, machine, send_token)
    raise KtchatError(
        f"There is no model {one_line(name, 80)}",
        "It is neither a file nor in the catalogue",
        f"Name a file, owner/repo:QUANT, or one of {', '.join(m.id for m in catalog.load())}",
    )


def _local(path: Path) -> ModelSpec:
    from engine.gguf.file import GGUFFile
    from engine.spec.reader import read_spec

    with GGUFFile.open(path) as file:
        return read_spec(file)


def _remote(name: str, machine: Hardware, send_token: bool | None) -> ModelSpec:
    """A model on the hub: without a quantisation, the best one whose files fit into memory."""
    hub = open_hub(send_token)
    return background.run(
        lambda report: hub.spec(hub.find(name, lambda model: versions.fits(model.size, machine)))
    )
