"""`ktchat doctor`: what this machine has, what is missing, and the command that brings it."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ktchat import shelf
from ktchat.cli import background, output
from ktchat.text import one_line

if TYPE_CHECKING:
    from engine.machine import Hardware
    from engine.machine_words import Line


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine has, and what is missing",
        description="Looks at processor, memory, GPUs, disk and software. The speed of memory and"
        " disk is measured once, in about two seconds.",
        allow_abbrev=False,
    )
    parser.add_argument("--profile", metavar="NAME|FILE", help="show another machine's description")
    parser.add_argument("--fresh", action="store_true", help="measure speeds again")
    parser.add_argument(
        "--json", action="store_true", help="print JSON, which --profile reads as another machine"
    )


def main(args: argparse.Namespace) -> int:
    """Look and print; returns the exit code."""
    from engine import machine_words, profiles

    if args.profile is not None:
        machine = profiles.load(args.profile)
    else:
        machine = background.run(lambda report: shelf.machine(measure=True, fresh=args.fresh))
    if args.json:
        output.line(json.dumps(machine.to_dict(), indent=2))
        return 0
    lines = [*machine_words.lines(machine), *_gpu_lines(machine)]
    if not machine.assumed:
        lines += machine_words.software(machine.software)
    for label, text in lines:
        output.line(f"{label:<17}{_shown(text)}")
    if machine.assumed:
        output.line(_shown(f"{machine.name}: {machine.assumed}"))
    for note in machine.notes:
        output.line(f"{'note':<17}{_shown(note)}")
    for problem in machine.problems:
        output.line(f"{'missing':<17}{_shown(problem.what)}")
        if problem.fix:
            output.line(f"{'':<17}{_shown(problem.fix)}")
    return 0


def _gpu_lines(machine: Hardware) -> list[Line]:
    """What there is to say of computing on the GPUs; further facts about them belong here."""
    from engine import machine_words

    return [machine_words.gpu_use(machine)] if machine.gpus else []


def _shown(text: str) -> str:
    with contextlib.suppress(RuntimeError):  # no home folder
        text = text.replace(f"{Path.home()}/", "~/")
    return one_line(text, 400)
