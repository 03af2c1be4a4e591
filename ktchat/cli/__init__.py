"""The command line: the table of commands, their arguments, failures as words and exit codes.

Each command is a module of this package with `add_parser(subparsers)` and `main(args) -> int`,
imported only when it is the one that was asked for. Exit codes: 0 done, 1 the task failed (one line
on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ktchat import __version__
from ktchat.cli import endpoint, load_options, output

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from ktchat.session.chat import Engine

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

COMMANDS = {
    "run": "one reply without the screen",
    "bench": "measure speed, against the memory's limit and against llama.cpp",
    "plan": "whether a model fits this machine, and how fast it will be",
    "doctor": "what this machine has, and what is missing",
    "verify": "compare a model's logits with float32 and with llama.cpp",
    "sessions": "list, search, show, export, import and remove saved sessions",
    "models": "list, search, download, check and remove models",
}
"""Name and one line of help; the module of the same name in `ktchat.cli` does the work."""

SCREEN = "chat"
"""The module for no command at all: the full-screen chat."""


class Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        from ktchat.common.text import one_line

        self.exit(WRONG_USAGE, f"{self.prog}: {one_line(message, 400)}. See {self.prog} --help\n")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if message:
            is_help = file is sys.stdout
            output.write(message, sys.stdout if is_help else sys.stderr)


def main(
    argv: Sequence[str] | None = None, engine_factory: Callable[[], Engine] | None = None
) -> int:
    """Run one command line (default: of this process) and return its exit code.

    `engine_factory` makes the engine; tests put a scripted one in its place.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    output.prepare()
    try:
        code = _run(arguments, engine_factory)
        output.flush()
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        from engine.common.os_errors import os_reason

        why, todo = os_reason(error)
        output.complain(f"{why[:1].upper()}{why[1:]}. {todo}.")
        return FAILED
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not break the way out
        return INTERRUPTED
    except output.OutputClosedError as error:
        output.abandon(error)
        return FAILED
    return code


def _run(arguments: list[str], engine_factory: Callable[[], Engine] | None) -> int:
    command = _command(arguments)
    parser = _parser(command)
    try:
        args = parser.parse_args(arguments)
        if args.plain and args.command:
            parser.error(f"--plain is the chat without a screen: it goes without {args.command}")
    except SystemExit as end:  # argparse: help, version or wrong usage, already printed
        return end.code if isinstance(end.code, int) else WRONG_USAGE
    args.engine_factory = engine_factory
    module = importlib.import_module(f"ktchat.cli.{args.command or SCREEN}")
    from engine.errors import KtchatError
    from ktchat.common.errors import UsageError
    from ktchat.common.text import one_line

    try:
        return int(module.main(args))
    except KtchatError as error:
        output.complain(one_line(str(error), 1000))
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def model_path(argument: str) -> str:
    """A model's path from an argument: absolute, since it is remembered."""
    try:
        return str(Path(argument).absolute())
    except FileNotFoundError:  # the working folder is gone: nothing is below it
        return argument


_WITH_VALUE = (
    *("-m", "--model", "--endpoint", "--remote-model"),
    *("--ctx", "--device", "--kv", "--lookup"),
)
"""Options before a command that take the next argument."""


def _command(arguments: Sequence[str]) -> str:
    """The command that is asked for, as far as one can tell before parsing; empty: none."""
    skip = False
    for argument in arguments:
        if skip or argument.startswith("-"):
            skip = not skip and argument in _WITH_VALUE
            continue
        return argument if argument in COMMANDS else ""
    return ""


def _parser(command: str) -> Parser:
    parser = Parser(
        prog="ktchat",
        description="Chat with mixture-of-experts models, on your own machine.",
        epilog="Without a command: the full-screen chat. Exit codes: 0 done, 1 failed,"
        " 2 wrong usage, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ktchat {__version__}")
    parser.add_argument(
        "-m", "--model", metavar="FILE", type=model_path, help="the model file (GGUF) to chat with"
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="chat line by line, without a screen: for screen readers, dumb terminals and logs",
    )
    endpoint.add(parser, None)
    load_options.add(parser, None)
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", parser_class=Parser
    )
    for name, words in COMMANDS.items():
        if name == command:
            importlib.import_module(f"ktchat.cli.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=words)
    return parser
