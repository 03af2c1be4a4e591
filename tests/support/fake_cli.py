"""`python -m tests.support.fake_cli SCRIPT ARGUMENT...`: the command line over a scripted engine.

SCRIPT is a JSON object: the fields of a `Reply`, how many `times` its text comes, and
`load_seconds`, `think`, what the model offers, `sampling`, what its file says, and `context`, its tokens; or
`replies`, such objects one after another (none: the message comes back). At the end the names of the
imported modules are written to the file in KTCHAT_TEST_MODULES, if set. With KTCHAT_TEST_READY set,
that file appears as soon as the program's first line has run.
"""

from __future__ import annotations

import ktchat.__main__  # isort: skip  # the program's first line

import json
import os
import sys
from pathlib import Path

if ready := os.environ.get("KTCHAT_TEST_READY"):
    Path(ready).touch()


def main() -> int:
    """Run the command line with a scripted engine in the engine's place."""
    script = json.loads(sys.argv.pop(1))
    if "--plain" in sys.argv:
        _be_patient()

    def engine() -> object:
        from engine.errors import ContextError
        from engine.protocol import PartialSampling
        from tests.support.fake_engine import FakeEngine, Reply

        load_seconds = script.pop("load_seconds", 0.0)
        think = tuple(script.pop("think", ()))
        own = PartialSampling(**script.pop("sampling", {}))
        context = script.pop("context", 4096)
        replies = []
        for fields in script.pop("replies", [script]):
            fields["text"] = fields.get("text", "") * fields.pop("times", 1)
            if words := fields.pop("error", ""):
                fields["error"] = ContextError(words)
            replies.append(Reply(**fields))
        return FakeEngine(replies, context, load_seconds, think=think, own_sampling=own)

    code = ktchat.__main__.main(engine)  # type: ignore[arg-type]
    if report := os.environ.get("KTCHAT_TEST_MODULES"):
        Path(report).write_text("\n".join(sorted(sys.modules)))
    return code


def _be_patient() -> None:
    """The plain chat waits as long as a busy hour needs: for the second Ctrl+C, and for the end."""
    from ktchat.cli.plain import program
    from tests.support.clock import PATIENCE

    program.QUIT_SECONDS = program.CLOSE_SECONDS = program.LEAVE_SECONDS = PATIENCE


if __name__ == "__main__":
    raise SystemExit(main())
