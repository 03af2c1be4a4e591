"""A program that downloads is killed at any moment: what came is kept and the next run goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.downloads.connections import MANY_CONNECTIONS
from engine.downloads.journal import bytes_kept
from engine.downloads.manifest import unfinished
from tests.support.cli import Program, one_clear_line
from tests.support.clock import PATIENCE, assert_within, until
from tests.support.hub_server import HubServer, Repo, hub_server

REPO = "own/Model-GGUF"
NAME = "Model-Q4_K_M.gguf"


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as running:
        yield running


@pytest.fixture
def program(tmp_path: Path, server: HubServer) -> Program:
    hub = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_good"}
    return Program(tmp_path / "home", **hub)


def part_of(program: Program, name: str = NAME) -> Path:
    return program.home / "models" / REPO / f"{name}.part"


def kept(program: Program, name: str = NAME) -> int:
    return bytes_kept(Path(f"{part_of(program, name)}.journal"))


def killed_at(program: Program, size: int, name: str = NAME) -> None:
    """Pull until `size` bytes of a file are there, then kill -9."""
    process = program.start("models", "pull", f"{REPO}:Q4_K_M")
    until(lambda: kept(program, name) >= size or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    ("size", "rate", "kills"), [(20_000_000, 20_000_000, 2), (68_000_000, 12_000_000, 2)]
)
def test_a_hundredth_at_most_is_lost_by_a_kill(
    program: Program, server: HubServer, size: int, rate: int, kills: int
) -> None:
    data = os.urandom(size)
    server.repos[REPO] = Repo({NAME: data})
    server.rate = rate
    # What the system's sockets hold is sent and not yet received; on a busy machine it is more.
    in_sockets = (4 if size >= MANY_CONNECTIONS else 1) * (192 << 10)
    lost = []
    for target in sorted(random.Random(size).sample(range(size // 8, size - size // 8), kills)):
        here, sent = kept(program), server.settled()
        server.hold(int((size - here) * 0.98))  # it is under way whenever it is killed
        killed_at(program, target)
        assert here < kept(program) < size
        lost.append(server.settled() - sent - (kept(program) - here))
        assert not part_of(program).with_suffix("").exists()
    assert_within(min(lost), size / 100 + in_sockets)  # bytes that came and are not kept
    server.go_on()
    sent, here = server.settled(), kept(program)
    done = program.run("models", "pull", f"{REPO}:Q4_K_M")
    assert done.returncode == 0 and "are here already" in done.stderr
    assert server.settled() - sent == size - here  # what was kept was right to the last block
    assert part_of(program).with_suffix("").read_bytes() == data


def test_a_split_model_survives_two_kills(program: Program, server: HubServer) -> None:
    names = [f"Model-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    files = {name: os.urandom(4_000_000) for name in names}
    server.repos[REPO] = Repo(files)
    server.rate = 12_000_000
    server.hold(3_900_000)
    killed_at(program, 2_000_000, names[2])
    server.settled()
    server.hold(4_000_000 - kept(program, names[2]) + 3_900_000)
    killed_at(program, 1_000_000, names[1])
    assert part_of(program, names[2]).with_suffix("").read_bytes() == files[names[2]]
    assert program.run("models", "verify").stdout.startswith("No models")  # none is whole yet
    assert [m.model.spec for m in unfinished(program.home / "models")] == [f"{REPO}:Q4_K_M"]
    listed = program.run("models", "list").stdout
    assert f"ktchat models pull {REPO}:Q4_K_M" in listed
    server.go_on()
    sent = server.settled()
    assert program.run("models", "pull", f"{REPO}:Q4_K_M").returncode == 0
    assert server.settled() - sent <= 7_000_000 + 400_000
    folder = part_of(program).parent
    for name, data in files.items():
        assert (folder / name).read_bytes() == data
    assert not [p for p in folder.iterdir() if p.suffix not in (".gguf", ".json", ".blocks")]
    assert unfinished(program.home / "models") == []


def test_ctrl_c_keeps_what_came_and_says_how_to_go_on(program: Program, server: HubServer) -> None:
    server.repos[REPO] = Repo({NAME: os.urandom(8_000_000)})
    server.rate = 4_000_000
    server.hold(7_900_000)
    process = program.start("models", "pull", REPO)
    until(lambda: kept(program) > 1_000_000 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and out == b""
    last = err.decode().splitlines()[-1]
    assert last.endswith(f"Go on with: ktchat models pull {REPO}:Q4_K_M")
    assert "Traceback" not in err.decode()
    here = kept(program)
    assert here > 1_000_000
    process = program.start("models", "pull", REPO)
    until(lambda: kept(program) > here or process.poll() is not None)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and b"Traceback" not in err


def test_a_second_program_is_told_that_one_downloads(program: Program, server: HubServer) -> None:
    server.repos[REPO] = Repo({NAME: os.urandom(6_000_000)})
    server.hold(3_000_000)
    first = program.start("models", "pull", REPO)
    until(lambda: kept(program) > 0 or first.poll() is not None)
    second = program.run("models", "pull", REPO)
    assert second.returncode == 1 and "Another ktchat downloads this model" in second.stderr
    removed = program.run("models", "rm", f"{REPO}:Q4_K_M", "--yes")
    assert removed.returncode == 1 and "Another ktchat" in removed.stderr
    assert first.poll() is None
    server.go_on()
    first.communicate(timeout=PATIENCE)
    assert first.returncode == 0


def in_small_disk(program: Program, size: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run with the home on a disk of its own of `size`."""
    program.home.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={size} t "$KTCHAT_HOME" && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *program.command(None, *arguments)],
        env=program.environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )


can_mount = (
    os.geteuid() == 0
    and subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "t", "/mnt"], capture_output=True
    ).returncode
    == 0
)


@pytest.mark.skipif(not can_mount, reason="needs the right to mount")
def test_a_disk_that_is_too_small_is_said_at_once(program: Program, server: HubServer) -> None:
    server.repos[REPO] = Repo({NAME: os.urandom(8_000_000)})
    done = in_small_disk(program, "6m", "models", "pull", REPO)
    assert done.returncode == 1 and "too little space" in done.stderr
    assert one_clear_line(done.stderr.splitlines()[-1])
    assert server.bodies == 0
