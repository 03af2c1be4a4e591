"""`ktchat` without a command: checks the terminal, then starts the full-screen chat, or the plain one."""

from __future__ import annotations

import argparse
import os
import sys

from ktchat.cli import endpoint, load_options, output
from ktchat.common import paths
from ktchat.common.errors import UsageError

FRAMES_A_SECOND = "120"
"""A key waits for at most one frame while a reply streams: 8 ms instead of Textual's 17."""

OTHERS = "The same chat line by line: ktchat --plain; for one reply: ktchat run PROMPT"


def main(args: argparse.Namespace) -> int:
    """Start the screen, or the chat line by line; returns its exit code."""
    model = endpoint.model(args)
    if args.plain or os.environ.get("KTCHAT_PLAIN", "") not in ("", "0"):
        return _plain(args, model)
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if not all(output.is_terminal(stream) for stream in streams):
        raise UsageError(
            "The full-screen chat needs a terminal",
            "Its input or output is a file or a pipe",
            OTHERS,
        )
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise UsageError(
            "The full-screen chat needs a terminal that can move the cursor",
            "TERM is empty or dumb",
            OTHERS,
        )
    os.environ.setdefault("TEXTUAL_FPS", FRAMES_A_SECOND)  # read when Textual is imported
    from ktchat.app import KtchatApp
    from ktchat.common.settings import SettingsFile

    app = KtchatApp(
        model=model,
        endpoint=model if model and args.endpoint else "",
        engine=args.engine_factory() if args.engine_factory else None,
        settings=SettingsFile(paths.settings_file(), load_options.overrides(args)),
    )
    app.run()
    if app.unsaved:
        output.complain(app.unsaved)
    return app.return_code or 0


def _plain(args: argparse.Namespace, model: str | None) -> int:
    from ktchat.cli.plain.program import Program
    from ktchat.common.settings import SettingsFile

    settings = SettingsFile(paths.settings_file(), load_options.overrides(args))
    engine = args.engine_factory() if args.engine_factory else None
    program = Program(model, settings, engine, model if model and args.endpoint else "")
    code = program.main()
    if program.unsaved:
        output.complain(program.unsaved)
    return code
