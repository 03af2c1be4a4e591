"""`python -m tests.support.fake_cli SCRIPT ARGUMENT...`: the command line over a scripted engine.

SCRIPT is a JSON object: the fields of a `Reply`, how many `times` its text comes, and
`load_seconds`, `think`, what the model offers, and `sampling`, what its file says. At the end the names of the
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

    def engine() -> object:
        from engine.errors import ContextError
        from engine.protocol import PartialSampling
        from tests.support.fake_engine import FakeEngine, Reply

        load_seconds = script.pop("load_seconds", 0.0)
        think = tuple(script.pop("think", ()))
        own = PartialSampling(**script.pop("sampling", {}))
        script["text"] = script.get("text", "") * script.pop("times", 1)
        if words := script.pop("error", ""):
            script["error"] = ContextError(words)
        reply = Reply(**script)
        return FakeEngine([reply], load_seconds=load_seconds, think=think, own_sampling=own)

    code = ktchat.__main__.main(engine)  # type: ignore[arg-type]
    if report := os.environ.get("KTCHAT_TEST_MODULES"):
        Path(report).write_text("\n".join(sorted(sys.modules)))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
