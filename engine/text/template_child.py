"""The throwaway process that renders a model's chat template, which is a program by somebody unknown.

Started as a script with the folder of jinja2 and the file `engine/process/confinement.py` as its
arguments, without site packages, environment or anything else of ours: it reads a template, then sets
of variables, and answers each with text or an error. Frames on stdin and stdout are four bytes of
length (big endian) and JSON. It has no network and sees no files but Python's own; its limits are on
memory, processor time and output; the parent holds the clock.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from jinja2 import Template

MEMORY = 512 << 20
CPU_SECONDS = 3
MAX_OUTPUT = 4 << 20
"""Characters in a rendered prompt."""


def main() -> None:
    """Answer frames until the parent closes the pipe."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    _limit()
    _load()
    _confine(sys.argv[2])
    source = _read(stdin)
    template: Template | str = "The template is no text"
    if isinstance(source, str):
        template = _compile(source)
    while (variables := _read(stdin)) is not None:
        _write(stdout, _render(template, variables))


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _allow_cpu()


def _load() -> None:
    """Jinja2 whole, while files are seen: an installer may have made links of its files."""
    import jinja2.debug
    import jinja2.ext
    import jinja2.sandbox  # noqa: F401


def _confine(path: str) -> None:
    spec = importlib.util.spec_from_file_location("confinement", path)
    assert spec is not None and spec.loader is not None
    confinement = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(confinement)
    confinement.without_network(local=False)
    confinement.without_files([*sys.path, "/usr/share/zoneinfo", "/etc/localtime"])


def _allow_cpu() -> None:
    """Processor time for one more piece of work; beyond it the kernel ends this process."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + CPU_SECONDS, hard))


def _compile(source: str) -> Template | str:
    """The template, or what is wrong with it."""
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks replies for training; here it is only its contents."""

        tags = {"generation"}  # noqa: RUF012 - the base class wants a set

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise, "strftime_now": time.strftime}
        return environment.from_string(source)
    except Exception as error:  # whatever a stranger's template provokes is an answer
        return _words(error)


def _render(template: Template | str, variables: Any) -> dict[str, str]:
    if isinstance(template, str):
        return {"error": template}
    _allow_cpu()
    try:
        pieces, length = [], 0
        for piece in template.generate(variables):
            length += len(piece)
            if length > MAX_OUTPUT:
                return {"error": "It writes too much"}
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except Exception as error:  # whatever a stranger's template provokes is an answer
        return {"error": _words(error)}


def _words(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "It needs too much memory"
    return f"{type(error).__name__}: {error}"[:500]


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise ValueError(message)


def _read(stream: BinaryIO) -> Any:
    head = stream.read(4)
    if len(head) < 4:
        return None
    return json.loads(stream.read(struct.unpack(">I", head)[0]))


def _write(stream: BinaryIO, answer: dict[str, str]) -> None:
    data = json.dumps(answer).encode()
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    main()
