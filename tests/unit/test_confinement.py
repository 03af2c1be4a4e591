"""What the engine's processes cannot do, whatever a file makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.process.confinement import probe
from engine.text.template_process import TemplateProcess
from tests.support.engines import scripted

HOLDS = probe()
needs_kernel = pytest.mark.skipif(
    not all(HOLDS.values()), reason=f"this kernel confines nothing more than {HOLDS}"
)


def run(code: str) -> dict[str, bool]:
    """What a process says after `code`; each name is whether something was refused."""
    start = (
        "import json, os, socket\n"
        "from engine.process import confinement\n"
        "refused = {}\n"
        "def attempt(name, action):\n"
        "    try:\n"
        "        action()\n"
        "        refused[name] = False\n"
        "    except PermissionError:\n"
        "        refused[name] = True\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{start}{code}\nprint(json.dumps(refused))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    found: dict[str, bool] = json.loads(done.stdout)
    return found


@needs_kernel
def test_no_socket_leaves_this_machine() -> None:
    refused = run(
        "confinement.without_network(local=True)\n"
        "for kind in ('AF_INET', 'AF_INET6', 'AF_NETLINK', 'AF_UNIX'):\n"
        "    attempt(kind, lambda: socket.socket(getattr(socket, kind)).close())\n"
        "attempt('pair', lambda: [end.close() for end in socket.socketpair()])\n"
    )
    assert refused == {
        "AF_INET": True,
        "AF_INET6": True,
        "AF_NETLINK": True,
        "AF_UNIX": False,
        "pair": False,
    }


@needs_kernel
def test_no_file_is_opened_but_to_read_those_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("x")
    (tmp_path / "out").write_text("x")
    refused = run(
        f"os.chdir({str(tmp_path)!r})\n"
        "confinement.without_files(['in', 'nowhere'])\n"
        "attempt('inside', lambda: open('in/file').close())\n"
        "attempt('list', lambda: os.listdir('in'))\n"
        "attempt('outside', lambda: open('out').close())\n"
        "attempt('write', lambda: open('in/file', 'w').close())\n"
        "attempt('make', lambda: open('in/new', 'w').close())\n"
        "attempt('remove', lambda: os.unlink('in/file'))\n"
        "attempt('run', lambda: os.execv('/bin/true', ['true']))\n"
    )
    outside = dict.fromkeys(("outside", "write", "make", "remove", "run"), True)
    assert refused == {"inside": False, "list": False, **outside}


@needs_kernel
async def test_the_engine_s_child_has_no_network() -> None:
    async with scripted() as engine:
        assert engine._child is not None
        status = Path(f"/proc/{engine._child.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status


@needs_kernel
def test_a_chat_template_is_confined() -> None:
    process = TemplateProcess("{{ 'a' }}{{ strftime_now('%Y')[:1] }}")
    try:
        assert process.render({}) == "a2"
        child = process._child
        assert child is not None
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    finally:
        process.close()
