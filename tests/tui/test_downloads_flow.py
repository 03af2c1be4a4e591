"""A split model from the search to the first reply, by keyboard alone; and downloads beside a chat."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, cast

import pytest

from engine.client import Engine
from engine.downloads.integrity import record_of
from engine.downloads.journal import bytes_kept
from kernels.cpu.build import build
from ktchat.common.settings import SettingsFile
from ktchat.library.downloads import Downloads
from ktchat.screens.models.choose import ChooseScreen
from ktchat.screens.models.manager import ModelManager
from ktchat.widgets.field import Field
from ktchat.widgets.models.model_table import Rows
from tests.support.clock import PATIENCE
from tests.support.fake_engine import Reply
from tests.support.hub_server import HubServer, Repo
from tests.tui.conftest import Running, Start
from tests.tui.hub import REPO, hub, split_model, with_split_model
from tests.tui.terminal import Terminal

__all__ = ["hub"]
SLOW = 1_200_000
"""Bytes a second of each connection."""


def manager(run: Running) -> ModelManager:
    assert isinstance(run.app.screen, ModelManager)
    return run.app.screen


def kept(home: Path) -> int:
    """Bytes of unfinished and finished files in the models folder."""
    folder = home / "models"
    begun = sum(bytes_kept(path) for path in folder.rglob("*.journal"))
    return begun + sum(path.stat().st_size for path in folder.rglob("*.gguf"))


async def search(run: Running, words: str) -> None:
    """Ctrl+O, search, words."""
    await run.press("ctrl+o")
    await run.until(lambda: isinstance(run.app.screen, ModelManager))
    await run.press("3")
    await run.until(lambda: isinstance(run.app.focused, Field))
    await run.type(words)
    await run.press("enter")
    await run.until(lambda: isinstance(run.app.focused, Rows) or not manager(run).search.asking)


@pytest.mark.xdist_group("clock")
async def test_a_split_model_is_searched_planned_pulled_killed_twice_verified_and_talked_with(
    start: Start, hub: HubServer, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    size = with_split_model(hub, tmp_path_factory.mktemp("tiny"))
    run = await start("hello", size=(80, 24))
    await search(run, "tiny")
    await run.sees(REPO)
    await run.press("enter")
    await run.until(lambda: isinstance(run.app.screen, ChooseScreen))
    await run.sees("Q4_K", "suits this machine", "runs on the CPU", "experts", "Writes > 1,000")
    assert hub.bodies < size / 2  # only headers were read
    hub.rate = SLOW
    hub.hold(size // 2)
    await run.press("enter")
    await run.sees("4 downloads", "Tiny-MoE Q4_K")
    await run.until(lambda: 0 < (state := run.app.context.downloads.states()[0]).done < state.total)
    await run.press("ctrl+q")
    await run.until(lambda: not run.app.is_running)

    for _ in range(2):
        before = kept(home)
        hub.settled()
        hub.hold(size - before - 400_000)
        kill_in_the_midst(home, before)
        assert kept(home) >= before * 0.99
    assert kept(home) < size

    hub.go_on()
    build()
    SettingsFile(home / "settings.toml").update(setup_done=True, temperature=0.0)
    engine: Any = Engine()
    run = await start(size=(80, 24), engine=engine, model=None)
    await run.press("ctrl+o", "4")
    await run.sees("paused")
    await run.press("space")
    await run.sees("here, checksum is right", "100 %")
    path = Path(run.app.context.downloads.states()[0].path)
    await run.press("1")
    await run.sees("tiny qwen3moe")
    while Path(manager(run).local.table.key) != path:
        await run.press("down")
    await run.press("v")
    await run.sees("is intact", "3 files")
    assert record_of(path) is not None
    await run.press("enter")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.path == str(path))
    run.chat.choose(max_tokens=8)
    await run.type("hi")
    await run.press("enter")
    await run.until(lambda: run.chat.conversation.last and not run.chat.busy)
    figures = run.last.figures
    assert figures is not None and figures.reply_tokens > 0
    assert run.screen.context.settings.read().last_model == str(path)
    await run.until(lambda: (home / "cache" / "speeds.json").exists())
    await run.press("ctrl+o")
    await run.until(lambda: isinstance(run.app.screen, ModelManager))
    local = manager(run).local
    await run.until(lambda: str(path) in local.models)
    plan = local.models[str(path)].plan
    assert plan is not None and plan.measured  # the run's own figure replaced the prediction


def kill_in_the_midst(home: Path, before: int) -> None:
    """Start the program in a terminal, go on with the download by keys, kill -9."""
    terminal = Terminal("-m", "ktchat", "-m", "/models/none.gguf", home=home)
    try:
        terminal.sees("paused")
        terminal.type("\x0f")
        terminal.sees("catalogue")
        terminal.type("4")
        terminal.sees("Space")
        terminal.type(" ")
        end = time.monotonic() + PATIENCE
        while kept(home) <= before:
            assert time.monotonic() < end
            terminal.drain(0.02)
        terminal.signal(signal.SIGKILL)
        terminal.wait()
    finally:
        terminal.close()


async def test_a_download_is_paused_resumed_and_cancelled_by_keys(
    start: Start, hub: HubServer, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    size = with_split_model(hub, tmp_path_factory.mktemp("tiny"))
    run = await start("hello", size=(80, 24))
    await search(run, "tiny")
    await run.sees(REPO)
    await run.press("enter")
    await run.sees("suits this machine")
    hub.rate = SLOW
    hub.hold(size - 400_000)
    await run.press("enter")
    downloads = run.app.context.downloads
    await run.until(lambda: downloads.states() and downloads.states()[0].done > 0)
    await run.press("space")
    await run.sees("paused")
    await run.press("space")
    await run.until(lambda: downloads.states()[0].is_active)
    await run.sees("MB/s", "left")
    await run.press("x")
    await run.sees("Cancel Tiny-MoE Q4_K and delete")
    await run.press("down", "enter")
    await run.until(lambda: not downloads.states())
    await run.sees("Nothing is being downloaded")
    assert kept(home) == 0


async def test_a_download_goes_on_beside_a_reply_and_says_so_in_one_line(
    start: Start, hub: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    size = with_split_model(hub, tmp_path_factory.mktemp("tiny"))
    run = await start(Reply("word " * 900, hold_after=100), size=(80, 24))
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("word word")
    await search(run, "tiny")
    await run.sees(REPO)
    assert run.chat.busy
    await run.press("enter")
    await run.sees("suits this machine")
    hub.hold(size // 2)
    await run.press("enter")
    await run.sees("4 downloads", "Tiny-MoE Q4_K")
    await run.press("escape")
    await run.sees("downloading Tiny-MoE", "%")
    hub.go_on()
    assert run.chat.busy
    await run.press("escape")
    await run.sees("Tiny-MoE Q4_K is here", "open it")
    await run.app.run_action("app.open_arrived")
    await run.until(lambda: run.chat.loaded is not None and "Tiny" in run.chat.loaded.name)


async def test_a_gated_repository_says_how_to_get_access(start: Start, hub: HubServer) -> None:
    hub.repos["owner/Secret-GGUF"] = Repo({"Secret-Q4_K_M.gguf": b"GGUF" + bytes(3000)}, gated=True)
    run = await start("hello", size=(100, 30))
    await search(run, "secret")
    await run.sees("owner/Secret-GGUF")
    await run.press("enter")
    await run.sees("is gated", "HF_TOKEN")


async def test_a_broken_header_on_the_hub_has_no_plan_but_words(
    start: Start, hub: HubServer
) -> None:
    hub.repos["owner/Odd-GGUF"] = Repo({"Odd-Q4_K_M.gguf": b"nonsense" * 4000})
    run = await start("hello", size=(100, 30))
    await search(run, "odd")
    await run.sees("owner/Odd-GGUF")
    await run.press("enter")
    await run.sees("Q4_K_M", "No plan")


async def test_names_from_the_hub_are_made_safe_to_draw(start: Start, hub: HubServer) -> None:
    name = "E\x1b]0;owned\x07vil-Q4_K_M.gguf"
    hub.repos["owner/Evil-GGUF"] = Repo({name: b"GGUF" + bytes(3000), "Q8_0.gguf": bytes(4000)})
    run = await start("hello", size=(100, 30))
    await search(run, "evil")
    await run.sees("owner/Evil-GGUF")
    await run.press("enter")
    await run.until(lambda: isinstance(run.app.screen, ChooseScreen))
    await run.sees("Q8_0")
    assert "owned" not in run.text() and "\x1b" not in run.text()


async def test_a_search_without_a_network_says_so(start: Start, hub: HubServer) -> None:
    hub.close()
    run = await start("hello", size=(80, 24))
    await search(run, "tiny")
    await run.sees("The hub cannot be reached")
    await run.press("escape")
    assert await run.ask("are you there?")


async def test_offline_mode_is_said(
    start: Start, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = await start("hello")
    await search(run, "tiny")
    await run.sees("HF_HUB_OFFLINE is set")


def test_what_is_asked_of_a_queue_that_never_started_changes_nothing(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path / "models")
    for act in (downloads.pause, downloads.resume, downloads.cancel, downloads.forget):
        act("owner/repo:Q4_K_M")
    assert downloads.states() == ()
    assert downloads.state("owner/repo:Q4_K_M") is None
    downloads.close()
    downloads.start()
    assert list(tmp_path.iterdir()) == []


def test_the_split_model_has_the_files_that_its_name_promises(tmp_path: Path) -> None:
    names = list(split_model(tmp_path))
    assert names == [f"Tiny-MoE-Q4_K-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    assert cast(str, names[0]).startswith("Tiny")
