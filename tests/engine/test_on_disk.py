"""A conversation that comes back from the disk says to the bit what it would have said."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.client import Engine
from engine.disk_cache import folder as folders
from engine.disk_cache.folder import CacheFolder
from engine.gguf.file import GGUFFile
from engine.plan.placement import LayerPlace, Placement
from engine.protocol import Finished, Load, Message, Sampling
from engine.runtimes.native import NativeRuntime
from engine.runtimes.on_disk import OnDisk
from engine.runtimes.placed import load_placed
from engine.spec.reader import read_spec
from kernels.ops import Floats
from tests.support.clock import PATIENCE
from tests.support.engines import collect
from tests.support.fidelity import nmse
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny import tiny_model

RNG = np.random.default_rng(7)
SYSTEM, QUESTION, REPLY, MORE = (RNG.integers(0, 250, n).tolist() for n in (530, 40, 25, 30))
FIRST = SYSTEM + QUESTION
SECOND = FIRST + REPLY + MORE
ENDS = len(SYSTEM), len(FIRST)
FAMILIES = {
    "qwen3moe": "qwen3moe",
    "deepseek2": "v2-lite",
    "qwen35moe": "qwen35moe",
    "gpt-oss": "gpt-oss",
    "gemma4": "gemma4",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("on_disk")


Opened = tuple[NativeRuntime, OnDisk]


@contextmanager
def opened(path: Path, cache: CacheFolder, budget: int | None = None) -> Iterator[Opened]:
    with GGUFFile.open(path) as file:
        runtime = NativeRuntime.load(file, read_spec(file), 1024, 2)
        disk = runtime.on_disk(cache, file.paths, budget)
        yield runtime, disk
        disk.close()
        runtime.close()


def read(both: Opened, prompt: list[int], marks: tuple[int, ...] = ()) -> tuple[int, Floats]:
    """How many tokens came from the disk, and the logits behind the prompt."""
    runtime, disk = both
    cached = runtime.begin(prompt, marks)
    restored = disk.restore(prompt, lambda there: True)
    done = cached + restored
    logits = runtime.logits if done == len(prompt) else None
    while done < len(prompt):
        chunk = prompt[done : done + runtime.chunk]
        logits = runtime.forward(chunk).copy()
        done += len(chunk)
    assert logits is not None
    return restored, logits


def talk(both: Opened, session: str = "s") -> None:
    """A first message and its reply, written to the disk."""
    read(both, FIRST, ENDS)
    for token in REPLY:
        both[0].forward([token])
    both[1].save(session)
    assert both[1].finish(PATIENCE)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_logits_are_the_same_to_the_bit(architecture: str, folder: Path) -> None:
    path = tiny_model(architecture, folder, variant=FAMILIES[architecture])
    cache = CacheFolder(folder / f"kv-{architecture}")
    with opened(path, cache) as both:
        talk(both)
        restored, in_memory = read(both, SECOND)
        assert restored == 0
    with opened(path, cache) as both:
        restored, from_disk = read(both, SECOND)
        assert restored == len(FIRST + REPLY)
        assert np.array_equal(from_disk, in_memory)
        assert read(both, MORE + QUESTION)[0] == 0, "it begins otherwise"
        assert read(both, SECOND)[0] == 0, "memory has it"


@pytest.mark.parametrize("architecture", ["qwen3moe", "gpt-oss"])
def test_drafts_that_were_cut_back_are_not_kept(architecture: str, folder: Path) -> None:
    path = tiny_model(architecture, folder, variant=FAMILIES[architecture])
    cache = CacheFolder(folder / f"kv-drafts-{architecture}")
    with opened(path, cache) as both:
        read(both, FIRST, ENDS)
        for token in REPLY:
            both[0].forward_all([token, 1, 2, 3])
            both[0].cut_back(3)
        both[1].save("s")
        assert both[1].finish(PATIENCE)
        in_memory = read(both, SECOND)[1]
    with opened(path, cache) as both:
        restored, from_disk = read(both, SECOND)
        assert restored == len(FIRST + REPLY) and np.array_equal(from_disk, in_memory)


def test_a_regenerated_reply_of_a_recurrent_model_reads_nothing(folder: Path) -> None:
    path = tiny_model("qwen35moe", folder)
    cache = CacheFolder(folder / "kv-regenerated")
    with opened(path, cache) as both:
        _, before = read(both, FIRST, ENDS)
        both[1].save("s")
        assert both[1].finish(PATIENCE)
    with opened(path, cache) as both:
        restored, logits = read(both, FIRST, ENDS)
        assert restored == len(FIRST) and np.array_equal(logits, before)


def test_a_branch_finds_what_it_shares_and_writes_only_its_own(folder: Path) -> None:
    path = tiny_model("qwen3moe", folder)
    cache = CacheFolder(folder / "kv-branch")
    with opened(path, cache) as both:
        talk(both)
        files = len(list(cache.entries()))
    with opened(path, cache) as both:
        restored, _ = read(both, SYSTEM + MORE)
        assert restored == len(SYSTEM) // 32 * 32
        both[1].save("branch")
        assert both[1].finish(PATIENCE)
        own = -(-len(SYSTEM + MORE) // 32) - len(SYSTEM) // 32
        assert len(list(cache.entries())) == files + own


@pytest.mark.parametrize("architecture", ["qwen3moe", "qwen35moe"])
def test_a_damaged_file_is_read_anew(architecture: str, folder: Path) -> None:
    path = tiny_model(architecture, folder)
    cache = CacheFolder(folder / f"kv-damaged-{architecture}")
    with opened(path, cache) as both:
        talk(both)
    with opened(path, CacheFolder(folder / "kv-empty")) as both:
        _, anew = read(both, SECOND)
    entries = sorted(cache.entries(), key=lambda entry: entry.used_ns)  # what comes last first
    pages = [entry.path for entry in entries if entry.path.suffix == ".page"]
    for file in (entries[0].path, pages[0], pages[-1]):
        data = file.read_bytes()
        file.write_bytes(data[:-40] + bytes([data[-40] ^ 4]) + data[-39:])
        with opened(path, cache) as both:
            restored, logits = read(both, SECOND)
        assert restored < len(FIRST + REPLY)
        assert nmse(logits, anew) < 1e-6
        assert not file.exists()
        file.write_bytes(data)


def test_what_is_swapped_out_of_the_cache_comes_back(folder: Path) -> None:
    path = tiny_model("qwen3moe", folder)
    with opened(path, CacheFolder(folder / "kv-swapped")) as both:
        talk(both)
        read(both, [3] * 900)
        restored, _ = read(both, SECOND)
        assert restored == len(FIRST + REPLY)


def test_a_message_stops_the_writing_which_goes_on_later(folder: Path) -> None:
    path = tiny_model("qwen3moe", folder)
    cache = CacheFolder(folder / "kv-stopped")
    with opened(path, cache) as both:
        disk = both[1]
        read(both, FIRST)
        disk.save("s")
        woken = threading.Event()
        disk.listen(woken.set)
        for _ in range(3):  # what is there, and two pages
            assert disk.advance()
            assert woken.wait(PATIENCE)
            woken.clear()
        read(both, SECOND)
        assert len(list(cache.entries())) == 2
        disk.save("s")
        assert disk.finish(PATIENCE)
        assert len(list(cache.entries())) == -(-len(SECOND) // 32)


def test_a_stop_meanwhile_keeps_what_is_there(folder: Path) -> None:
    for architecture in ("qwen3moe", "qwen35moe"):
        path = tiny_model(architecture, folder)
        cache = CacheFolder(folder / f"kv-cancelled-{architecture}")
        with opened(path, cache) as both:
            talk(both)
        with opened(path, cache) as both:
            both[0].begin(SECOND)
            restored = both[1].restore(SECOND, lambda there: there < 320)
            assert restored == (320 if architecture == "qwen3moe" else 0)
            assert read(both, SECOND)[0] == len(FIRST + REPLY) - restored


def test_the_budget_keeps_what_can_be_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_model("qwen35moe", folder)
    cache = CacheFolder(folder / "kv-budget")
    budget = 600_000
    with opened(path, cache, budget) as both:
        talk(both)
    assert budget / 2 < cache.used() <= budget
    with opened(path, cache, budget) as both:
        restored, _ = read(both, SECOND)
        assert 0 < restored < len(FIRST + REPLY)
    monkeypatch.setattr(folders, "SPARE", 1 << 60)
    with opened(path, CacheFolder(folder / "kv-none")) as both:
        talk(both)
        assert "the disk is nearly full" in both[1].notice()
        assert not both[1].notice(), "it is said once"


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_what_cannot_be_written_is_said_and_harms_nothing(
    fault: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_model("qwen3moe", folder)
    cache = CacheFolder(folder / f"kv-{fault}")
    real = os.open

    def failing(name: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(fault, os.strerror(fault))
        return real(name, flags, *rest, **named)

    with opened(path, cache) as both:
        talk(both)
        files = len(list(cache.entries()))
        monkeypatch.setattr(os, "open", failing)
        read(both, SECOND)
        both[1].save("s")
        assert both[1].finish(PATIENCE)
        assert "read again another time" in both[1].notice()
        monkeypatch.undo()
        both[1].save("s")
        assert both[1].finish(PATIENCE)
        assert len(list(cache.entries())) > files


def test_it_goes_through_the_op_sets_of_devices(folder: Path) -> None:
    path = tiny_model("qwen35moe", folder)
    places = tuple(LayerPlace(*place) for place in [(None, 0), (0, 4), (0, 4), (1, 4)])
    cache = CacheFolder(folder / "kv-devices")
    said = []
    for _ in range(2):
        devices = {number: SimulatedDevice() for number in range(2)}
        with GGUFFile.open(path) as file:
            runtime = load_placed(
                *(file, read_spec(file), Placement(places, 96, "f16"), devices.__getitem__),
                reserve=lambda gpu, memory: 0,
                threads=2,
            )
            both = runtime, runtime.on_disk(cache, file.paths, None)
            if not said:
                read(both, QUESTION, (len(QUESTION),))
                runtime.forward(REPLY)
                both[1].save("s")
                assert both[1].finish(PATIENCE)
            said.append(read(both, QUESTION + REPLY + MORE))
            both[1].close()
            runtime.close()
    assert [restored for restored, _ in said] == [0, len(QUESTION + REPLY)]
    assert nmse(said[1][1], said[0][1]) < 1e-9


async def converse(path: Path, kv: Path, messages: list[Message], session: str | None) -> Finished:
    """The end of one reply, by an engine process of its own that is given time to write."""
    engine = Engine()
    try:
        await collect(engine.load(Load(str(path), threads=1, cache_folder=str(kv))))
        sampling = Sampling(temperature=0.0)
        finished = (await collect(engine.generate(messages, sampling, 4, None, session)))[-1]
        assert isinstance(finished, Finished)
        return finished
    finally:
        await engine.close(PATIENCE)


async def test_engine_processes_go_on_where_one_ended(folder: Path, tmp_path: Path) -> None:
    path = tiny_model("qwen35moe", folder)
    messages = [Message("user", "tell me something " * 5)]
    first = await converse(path, tmp_path / "kv", messages, None)
    assert not (tmp_path / "kv").exists(), "nobody's: nothing is written"
    first = await converse(path, tmp_path / "kv", messages, "s")
    assert first.figures.restored_tokens == 0
    again = await converse(path, tmp_path / "kv", messages, "s")
    assert (
        again.figures.restored_tokens == again.figures.cached_tokens == first.figures.prompt_tokens
    )
    assert again.figures.restore_seconds > 0


async def test_a_killed_engine_leaves_what_can_be_used(folder: Path, tmp_path: Path) -> None:
    path, kv = tiny_model("qwen3moe", folder), CacheFolder(tmp_path)
    messages = [Message("user", "tell me something " * 20)]
    engine = Engine()
    await collect(engine.load(Load(str(path), threads=1, cache_folder=str(tmp_path))))
    finished = (await collect(engine.generate(messages, None, 4, None, "s")))[-1]
    assert isinstance(finished, Finished)
    assert engine._child is not None
    os.kill(engine._child.pid, signal.SIGKILL)
    await engine.close()
    there = sum(entry.path.suffix == ".page" for entry in kv.entries())
    again = await converse(path, tmp_path, messages, "s")
    restored = again.figures.restored_tokens
    assert min(32 * there, finished.figures.prompt_tokens - 1) <= restored
    assert again.figures.prompt_tokens == finished.figures.prompt_tokens
