"""From a search to a reply: a split model is found, planned, pulled, killed twice, and run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from engine.downloads.journal import bytes_kept
from tests.support.cli import Program
from tests.support.clock import PATIENCE, until
from tests.support.hub_server import HubServer, Repo, hub_server
from tests.support.split_model import split_model
from tests.support.tiny import tiny_model

REPO = "own/Tiny-MoE-GGUF"


def kept(program: Program) -> int:
    folder = program.home / "models" / REPO
    whole = sum(path.stat().st_size for path in folder.glob("*.gguf"))
    return whole + sum(bytes_kept(path) for path in folder.glob("*.part.journal"))


def pull_and_kill(program: Program, size: int) -> None:
    process = program.start("models", "pull", REPO)
    until(lambda: kept(program) >= size or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_split_model_from_search_to_reply(tmp_path: Path) -> None:
    parts = split_model(tiny_model("qwen3moe", tmp_path), tmp_path, "Tiny-F16", 12)
    assert len(parts) > 2
    with hub_server() as server:
        hub = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path)}
        search_to_reply(Program(tmp_path / "home", **hub).knows_the_machine(), server, parts)


def search_to_reply(program: Program, server: HubServer, parts: list[Path]) -> None:
    server.repos[REPO] = Repo({path.name: path.read_bytes() for path in parts})
    size = sum(path.stat().st_size for path in parts)
    (hit,) = json.loads(program.run("models", "search", "tiny", "--json").stdout)
    info = program.run("models", "info", f"{hit['repo']}:F16", "--json")
    detail = json.loads(info.stdout)
    assert len(detail["files"]) == len(parts) and "No plan" not in detail["fit"][0]
    assert server.bodies < size  # only headers were read
    server.rate = 12_000_000
    for target in (size // 3, 2 * size // 3):
        server.settled()
        server.hold(int((size - kept(program)) * 0.98))
        pull_and_kill(program, target)
    server.go_on()
    sent, here = server.bodies, kept(program)
    pulled = program.run("models", "pull", REPO)
    assert pulled.returncode == 0 and server.bodies - sent <= size - here + (300 << 10)
    path = Path(pulled.stdout.strip())
    assert program.run("models", "verify", str(path), "--force").returncode == 0
    reply = program.run("run", "-m", str(path), "--max-tokens", "8", "Hello", timeout=PATIENCE)
    assert reply.returncode == 0 and reply.stdout.strip()
    for part in parts:
        assert (path.parent / part.name).read_bytes() == part.read_bytes()
