"""What `ktchat run` is asked: the command line, the settings behind it, and what is piped in."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import cast

from engine.errors import RequestError
from engine.protocol import PartialSampling, Think
from ktchat.cli import endpoint, standard_input
from ktchat.common import sampling
from ktchat.common.errors import UsageError
from ktchat.common.sampling import SamplingSources
from ktchat.common.settings import OverflowPolicy, Settings


@dataclass(frozen=True)
class Request:
    """One message, and how it is to be answered."""

    prompt: str
    model: str | None
    """A file, or an address on a server; None: the one that was used last."""
    endpoint: str
    """The same address where the command line names a server; empty: it does not."""
    last: bool
    system: str
    sampling: SamplingSources
    max_tokens: int | None
    think: Think | None
    overflow: OverflowPolicy
    save: bool
    """Whether the conversation is saved, and what was read goes to the disk."""


def request(args: argparse.Namespace, settings: Settings) -> Request:
    """The request; what is piped in is read. Raises `UsageError` and `RequestError`."""
    try:
        command = PartialSampling(**{name: getattr(args, name) for name in sampling.NAMES})
    except RequestError as error:
        raise UsageError(error.what, error.why, error.todo) from error
    if args.max_tokens is not None and not 1 <= args.max_tokens <= 1 << 30:
        raise UsageError("That --max-tokens is not possible", "", "Use 1 to 1073741824")
    if args.last and args.system is not None:
        raise UsageError("--system goes with a new session", "", "Leave out -c or --system")
    if args.last and args.no_save:
        raise UsageError("--no-save goes with a new session", "", "Leave out -c or --no-save")
    model = endpoint.model(args)
    return Request(
        prompt=_prompt(args.prompt, args.stdin),
        model=model,
        endpoint=model if model and args.endpoint else "",
        last=args.last,
        system=settings.system if args.system is None else _decoded(args.system),
        sampling=SamplingSources(command, settings.sampling),
        think=args.think,
        overflow=args.overflow or cast(OverflowPolicy, settings.overflow),
        max_tokens=args.max_tokens or settings.token_limit,
        save=not args.no_save,
    )


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
