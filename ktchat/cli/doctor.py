"""`ktchat doctor`: what this machine has, what is missing, and the command that brings it.

GPUs that our engine would compute on are tried, in a process of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.cells import ljust
from ktchat.cli import background, output
from ktchat.common.text import one_line
from ktchat.library import plans

if TYPE_CHECKING:
    from engine.machine.gpu_trial import GpuFacts
    from engine.machine.report import Line
    from engine.machine.types import Hardware


LABEL = 17
"""Columns of what a line is about."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine has, and what is missing",
        description="Looks at processor, memory, GPUs, disk and software. The speed of memory and"
        " disk is measured once, in about two seconds; GPUs that can be used are tried each time.",
        allow_abbrev=False,
    )
    parser.add_argument("--profile", metavar="NAME|FILE", help="show another machine's description")
    parser.add_argument("--fresh", action="store_true", help="measure speeds again")
    parser.add_argument(
        "--no-gpu-check", dest="check", action="store_false", help="do not try the GPUs"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, which --profile reads as another machine"
    )


def main(args: argparse.Namespace) -> int:
    """Look and print; returns the exit code."""
    from engine.machine import profiles
    from engine.machine import report as machine_report
    from engine.machine.probes.pages import huge_pages_come

    facts: list[GpuFacts] = []
    if args.profile is not None:
        machine = profiles.load(args.profile)
    else:
        machine, facts = background.run(lambda report: _look(args.fresh, args.check, report))
    faults = tuple(machine_report.gpu_faults(facts))
    machine = dataclasses.replace(machine, problems=machine.problems + faults)
    if args.json:
        shown = machine.to_dict() | {"gpu_facts": [dataclasses.asdict(fact) for fact in facts]}
        if not machine.assumed:
            shown["huge_pages"] = huge_pages_come()
        output.line(json.dumps(shown, indent=2))
        return 0
    lines = [*machine_report.lines(machine), *_gpu_lines(machine, facts)]
    if not machine.assumed:
        lines.append(machine_report.pages(huge_pages_come()))
        lines += machine_report.software(machine.software)
    else:
        lines.append(("assumed", f"{machine.name}: {machine.assumed}"))
    if not machine.assumed:
        lines.append(("confined", _confined()))
    lines += [("note", note) for note in machine.notes]
    for label, text in lines:
        output.wrapped(_shown(text), ljust(label, LABEL))
    for problem in machine.problems:
        output.wrapped(_shown(problem.what), ljust("missing", LABEL))
        if problem.fix:  # in one piece, to be copied
            output.line(" " * LABEL + _shown(problem.fix))
    return 0


def _look(fresh: bool, check: bool, report: background.Report) -> tuple[Hardware, list[GpuFacts]]:
    """This machine, and its GPUs tried if our engine would compute on them."""
    from engine.machine import gpu_trial
    from engine.machine.probes.software import gpu_obstacle

    machine = plans.machine(measure=True, fresh=fresh)
    if not check or not machine.use_gpus or gpu_obstacle(machine) is not None:
        return machine, []
    report("trying the GPU", 0, 0)
    facts, gpus = gpu_trial.ask(), machine.gpus
    if len(facts) == len(gpus):  # in the same order; those too old to be used say nothing new
        facts = [fact for fact, gpu in zip(facts, gpus, strict=True) if gpu.usable]
    return machine, facts


def _gpu_lines(machine: Hardware, facts: list[GpuFacts]) -> list[Line]:
    """Whether our engine computes on the GPUs, and what came of trying them."""
    from engine.machine import report as machine_report

    if not machine.gpus:
        return []
    tried = [("GPU tried", machine_report.gpu_fact(fact)) for fact in facts if not fact.error]
    return [machine_report.gpu_use(machine, facts), *tried]


def _confined() -> str:
    """What the engine's processes are kept from, by the kernel."""
    from engine.process.confinement import probe

    words = {"network": "the engine has no network", "files": "chat templates see no files"}
    holds = [words[what] for what, holding in probe().items() if holding]
    return " · ".join(holds) or "nothing is: this kernel has neither seccomp nor Landlock"


def _shown(text: str) -> str:
    with contextlib.suppress(RuntimeError):  # no home folder
        text = text.replace(f"{Path.home()}/", "~/")
    return one_line(text, 400)
