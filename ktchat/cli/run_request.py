"""What `ktchat run` is asked: the command line, the settings behind it, and what is piped in."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from typing import cast

from engine.errors import RequestError
from engine.protocol import PartialSampling, Think
from ktchat.cli import standard_input
from ktchat.common.errors import UsageError
from ktchat.common.precedence import NAMES
from ktchat.common.settings import OverflowPolicy, Overrides, Settings


@dataclass(frozen=True)
class Request:
    """One message, and how it is to be answered."""

    prompt: str
    model: str | None
    last: bool
    said: Overrides
    """What the command line says of the settings."""
    think: Think | None
    overflow: OverflowPolicy
    save: bool
    """Whether the conversation is saved, and what was read goes to the disk."""


def request(args: argparse.Namespace, settings: Settings, said: Overrides) -> Request:
    """The request; what is piped in is read. `said`: what of the command line was read before. Raises `UsageError` and
    `RequestError`."""
    values = {name: getattr(args, name) for name in NAMES}
    try:
        PartialSampling(**values)
    except RequestError as error:
        raise UsageError(error.what, error.why, error.todo) from error
    if args.max_tokens is not None and not 1 <= args.max_tokens <= 1 << 30:
        raise UsageError("That --max-tokens is not possible", "", "Use 1 to 1073741824")
    if args.last and args.system is not None:
        raise UsageError("--system goes with a new session", "", "Leave out -c or --system")
    if args.last and args.no_save:
        raise UsageError("--no-save goes with a new session", "", "Leave out -c or --no-save")
    return Request(
        prompt=_prompt(args.prompt, args.stdin),
        model=args.model,
        last=args.last,
        said=replace(said, **values, max_tokens=args.max_tokens, system=_system(args)),
        think=args.think,
        overflow=args.overflow or cast(OverflowPolicy, settings.overflow),
        save=not args.no_save,
    )


def _system(args: argparse.Namespace) -> str | None:
    return None if args.system is None else _decoded(args.system)


def _prompt(argument: str | None, stdin: bool) -> str:
    parts = [] if argument is None else [_decoded(argument)]
    if stdin:
        parts.append(standard_input.piped())
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt:
        raise UsageError("There is no prompt", "", "Give one: ktchat run PROMPT, or pipe text in")
    return prompt


def _decoded(argument: str) -> str:
    """An argument as text; bytes that are not UTF-8 are replaced."""
    return os.fsencode(argument).decode("utf-8", "replace")
