"""`ktchat models`: the models on this machine, on the command line."""

from __future__ import annotations

import argparse
import dataclasses
import json

from ktchat import paths
from ktchat.cli import output
from ktchat.models import ModelEntry, list_models
from ktchat.settings import SettingsFile
from ktchat.words import file_size


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat models`."""
    parser = subparsers.add_parser(
        "models", help="list the models on this machine", allow_abbrev=False
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="the guide, the models folder, and files opened before"
    )
    listing.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    """List the models; returns the exit code."""
    entries = list_models(SettingsFile(paths.settings_file()).settings.recent_models)
    if args.json:
        output.line(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
        return 0
    for entry in entries:
        output.line(_line(entry))
    if not entries:
        output.line(f"No models. Put GGUF files into {paths.models_folder()}")
    return 0


def _line(entry: ModelEntry) -> str:
    if entry.error:
        return f"{entry.name:<32}  broken: {entry.error}  {entry.shown_path}"
    return (
        f"{entry.name:<32}  {entry.architecture:<10}  {entry.quantisation:<8}"
        f"  {file_size(entry.size):>8}  {entry.shown_path}"
    )
