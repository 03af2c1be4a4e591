"""`ktchat` without a command: checks the terminal, then starts the full-screen chat."""

from __future__ import annotations

import argparse
import os
import sys

from ktchat.cli import endpoint, load_options, output
from ktchat.common import paths
from ktchat.common.errors import UsageError

FRAMES_A_SECOND = "120"
"""A key waits for at most one frame while a reply streams: 8 ms instead of Textual's 17."""


def main(args: argparse.Namespace) -> int:
    """Start the screen; returns its exit code."""
    model = endpoint.model(args)
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if not all(output.is_terminal(stream) for stream in streams):
        raise UsageError(
            "The full-screen chat needs a terminal",
            "Its input or output is a file or a pipe",
            "For one reply without the screen: ktchat run PROMPT",
        )
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise UsageError(
            "The full-screen chat needs a terminal that can move the cursor",
            "TERM is empty or dumb",
            "For one reply without the screen: ktchat run PROMPT",
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
