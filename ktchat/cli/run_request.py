"""What `ktchat run` is asked: the command line, the settings behind it, and what is piped in."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from engine.errors import RequestError
from engine.protocol import PartialSampling, Think
from ktchat.attachments import reading
from ktchat.attachments.attachment import MAX_ATTACHMENTS, Attachment, Draft, shown_name
from ktchat.cli import endpoint, standard_input
from ktchat.common.errors import UsageError
from ktchat.common.precedence import NAMES
from ktchat.common.settings import OverflowPolicy, Overrides, Settings


@dataclass(frozen=True)
class Request:
    """One message, and how it is to be answered."""

    draft: Draft
    """What is written, and the files that go with it."""
    model: str | None
    """A file, or an address on a server; None: the one that was used last."""
    endpoint: str
    """The same address where the command line names a server; empty: it does not."""
    last: bool
    said: Overrides
    """What the command line says of the settings."""
    think: Think | None
    overflow: OverflowPolicy
    save: bool
    """Whether the conversation is saved, and what was read goes to the disk."""


def request(args: argparse.Namespace, settings: Settings, said: Overrides) -> Request:
    """The request; what is piped in is read. `said`: what of the command line was read before. Raises `UsageError`,
    `RequestError` and `AttachmentError`."""
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
    model = endpoint.model(args)
    return Request(
        draft=_draft(args.prompt, args.stdin, args.files),
        model=model,
        endpoint=model if model and args.endpoint else "",
        last=args.last,
        said=replace(said, **values, max_tokens=args.max_tokens, system=_system(args)),
        think=args.think,
        overflow=args.overflow or cast(OverflowPolicy, settings.overflow),
        save=not args.no_save,
    )


def _system(args: argparse.Namespace) -> str | None:
    return None if args.system is None else _decoded(args.system)


def _draft(argument: str | None, stdin: bool, files: Sequence[str]) -> Draft:
    parts = [] if argument is None else [_decoded(argument)]
    if stdin:
        parts.append(standard_input.piped())
    draft = Draft("\n\n".join(part for part in parts if part.strip()), _attachments(files))
    if not draft:
        raise UsageError("There is no prompt", "", "Give one: ktchat run PROMPT, or pipe text in")
    return draft


def _attachments(files: Sequence[str]) -> tuple[Attachment, ...]:
    if len(files) > MAX_ATTACHMENTS:
        raise UsageError(
            f"A message takes {MAX_ATTACHMENTS} files at most", f"There are {len(files)}"
        )
    found = []
    for file in files:
        path = Path(os.path.expanduser(file)).absolute()  # noqa: PTH111  # never raises
        if reading.is_model(path):
            name = shown_name(str(path))
            raise UsageError(
                f"{name} is a model", "-f attaches texts", f"Name it with -m: -m {name}"
            )
        found.append(reading.read(path))
    return tuple(found)


def _decoded(argument: str) -> str:
    """An argument as text; bytes that are not UTF-8 are replaced."""
    return os.fsencode(argument).decode("utf-8", "replace")
