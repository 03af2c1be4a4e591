"""The first start: this machine, a model, getting it; and that it always ends in a conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import KtchatError
from engine.machine import probe as hardware
from engine.machine import profiles
from engine.machine.probes import gpu as gpu_probe
from engine.machine.types import Gpu, Problem
from ktchat.common.settings import SettingsFile
from ktchat.library import plans, versions
from ktchat.screens.dialogs.path_dialog import PathDialog
from ktchat.screens.models.choose import ChooseScreen
from ktchat.screens.models.manager import ModelManager
from ktchat.screens.models.setup import SetupScreen
from ktchat.screens.models.setup_steps import Step
from tests.support.clock import PATIENCE
from tests.support.fake_engine import FakeEngine
from tests.support.hub_server import HubServer, Repo
from tests.support.tiny import tiny_model
from tests.tui.conftest import Running, Start
from tests.tui.hub import hub, split_model

__all__ = ["hub"]


def wizard(run: Running) -> SetupScreen:
    assert isinstance(run.app.screen, SetupScreen)
    return run.app.screen


async def at_models(start: Start, *script: str, size: tuple[int, int] = (80, 24)) -> Running:
    """A first start at its second step, the catalogue ranked."""
    run = await start(*script, size=size, model=None)
    await run.sees("This machine", "RAM", "Disk")
    await run.press("enter")
    await run.sees("Qwen3-30B-A3B", "CPU", "tok/s")
    return run


async def test_the_first_start_shows_the_machine_and_what_runs_well(
    start: Start, hub: HubServer
) -> None:
    run = await at_models(start)
    assert wizard(run).step == Step.MODEL
    await run.sees("GB", "~", "●", "short by", "context", "quality")
    assert all(len(line) <= 80 for line in run.lines())
    assert not hub.requests  # nobody is asked before a model is chosen


async def test_without_a_network_the_wizard_ends_in_a_conversation_with_the_guide(
    start: Start, hub: HubServer
) -> None:
    hub.close()
    run = await at_models(start, "I am the guide.")
    await run.press("enter")
    await run.sees("The hub cannot be reached", "g talks to the built-in guide")
    await run.press("g")
    await run.until(lambda: run.app.screen is run.screen)
    assert run.chat.loaded is not None and "guide" in run.chat.loaded.name
    await run.ask("who are you?")
    await run.sees("I am the guide.")


async def test_without_a_network_a_local_file_is_opened(
    start: Start, hub: HubServer, home: Path
) -> None:
    hub.close()
    (home / "models").mkdir()
    model = tiny_model("qwen3moe", home / "models")
    run = await start("from the file", size=(80, 24), model=None)
    await run.press("enter")
    await run.sees("on this machine", "tiny qwen3moe")
    await run.press("enter")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.name == model.stem)
    await run.ask("hello")
    await run.sees("from the file")


async def test_every_step_is_skipped_with_escape_and_nothing_is_asked_twice(
    start: Start, hub: HubServer, home: Path
) -> None:
    run = await start(model=None)
    assert wizard(run).step == Step.MACHINE
    await run.press("escape")
    assert wizard(run).step == Step.MODEL
    await run.press("escape")
    await run.until(lambda: run.app.screen is run.screen)
    assert SettingsFile(home / "settings.toml").settings.setup_done
    again = await start(model=None)
    assert again.app.screen is again.screen


async def test_a_named_model_is_not_asked_about(start: Start) -> None:
    run = await start()
    assert run.app.screen is run.screen


async def test_a_model_is_downloaded_while_one_talks_to_the_guide(
    start: Start, hub: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = split_model(tmp_path_factory.mktemp("tiny"))
    run = await at_models(start, "the guide answers")
    entry = wizard(run)._ranked[wizard(run).table.key]
    named = {n.replace("Q4_K", entry.quant.name): data for n, data in files.items()}
    hub.repos[entry.model.repository] = Repo(named)
    hub.rate = 1_200_000
    hub.hold(sum(map(len, named.values())) - 400_000)
    await run.press("enter")
    await run.until(lambda: wizard(run).step == Step.READY)
    await run.sees("%", "The download goes on while you chat")
    await run.press("space")
    await run.sees("paused")
    await run.press("space")
    await run.press("enter")
    await run.until(lambda: run.app.screen is run.screen)
    await run.sees("downloading")
    await run.ask("hello?")
    await run.sees("the guide answers")
    hub.go_on()
    await run.sees("is here", "open it")


async def test_the_last_step_opens_the_model_when_it_is_here(
    start: Start, hub: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = split_model(tmp_path_factory.mktemp("tiny"))
    run = await at_models(start)
    entry = wizard(run)._ranked[wizard(run).table.key]
    named = {n.replace("Q4_K", entry.quant.name): data for n, data in files.items()}
    hub.repos[entry.model.repository] = Repo(named)
    await run.press("enter")
    await run.sees("100 %", "Enter opens it")
    await run.press("enter")
    await run.until(lambda: run.chat.loaded is not None and "Tiny-MoE" in run.chat.loaded.name)


async def test_a_repository_with_other_versions_shows_them(start: Start, hub: HubServer) -> None:
    run = await at_models(start)
    entry = wizard(run)._ranked[wizard(run).table.key]
    hub.repos[entry.model.repository] = Repo({"Other-Q8_0.gguf": b"GGUF" + bytes(5000)})
    await run.press("enter")
    await run.until(lambda: isinstance(run.app.screen, ChooseScreen))
    await run.sees("Q8_0")


async def test_details_search_and_a_file_are_one_key_away(start: Start, hub: HubServer) -> None:
    run = await at_models(start)
    await run.press("i")
    await run.until(lambda: isinstance(run.app.screen, ChooseScreen))
    await run.sees("suits this machine", "Q4_K_M", "experts", "KV cache", "limited by")
    await run.press("escape", "slash")
    await run.until(lambda: isinstance(run.app.screen, ModelManager))
    await run.press("escape")
    await run.until(lambda: isinstance(run.app.screen, SetupScreen))
    await run.press("o")
    await run.until(lambda: isinstance(run.app.screen, PathDialog))
    await run.press("escape")
    assert wizard(run).step == Step.MODEL


async def test_a_gpu_is_shown_and_it_is_said_why_it_is_not_used(
    start: Start, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Gpu("NVIDIA GeForce RTX 4090", 24 << 30, 23 << 30, driver="550.54")
    missing = Problem("llama.cpp was built for the CPU only", "pip install llama-cpp-python")
    monkeypatch.setattr(gpu_probe, "gpus", lambda: ((card,), [missing], ["PCIe was not found out"]))
    run = await start(size=(80, 24), model=None)
    await run.sees(
        "RTX 4090", "ktchat computes on the CPU", "built for the CPU only", "pip install"
    )
    await run.sees("PCIe was not found out")


@pytest.mark.parametrize("size", [(80, 24), (110, 40)])
async def test_plans_with_a_gpu_are_shown_with_its_bar_and_verdict(
    start: Start, hub: HubServer, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(plans, "machine", lambda measure, device=None: profiles.load("4060-32gb"))
    run = await start(size=size, model=None)
    await run.sees("RTX 4060", "reads up to 272 GB/s", "ktchat computes on the GPU")
    await run.press("enter")
    await run.sees("Mixtral", "hybrid", "CPU", "tok/s", "short by")
    for _ in range(20):
        if wizard(run).table.key.startswith("mixtral"):
            break
        await run.press("down")
    await run.press("i")
    await run.sees("runs on GPU and CPU", "RTX 4060  ▇", "RAM  ", "not yet measured on a GPU")
    assert all(len(line) <= size[0] for line in run.lines())


async def test_measuring_does_not_keep_the_person_waiting(
    start: Start, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from engine.machine.probes import bandwidth

    gate = threading.Event()

    def slow(cores: int) -> tuple[tuple[tuple[int, float], ...], list[str]]:
        gate.wait(PATIENCE)
        return ((1, 20.0),), []

    monkeypatch.setattr(bandwidth, "read_speeds", slow)
    run = await start("hello", size=(80, 24), model=None)
    try:
        await run.sees("measuring its speed")
        await run.press("enter")
        await run.sees("measuring this machine")
        await run.press("g")
        await run.until(lambda: run.app.screen is run.screen)
        await run.ask("hello?")
    finally:
        gate.set()


async def test_a_damaged_catalogue_is_said_and_the_guide_is_there(
    start: Start, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(machine: hardware.Hardware) -> list[object]:
        raise KtchatError("catalog.json is damaged", "It ends too early", "Install ktchat again")

    monkeypatch.setattr(versions, "catalogue", damaged)
    run = await start("hello", model=None)
    await run.press("enter")
    await run.sees("catalog.json is damaged")
    await run.press("g")
    await run.ask("hello?")


async def test_the_wizard_can_be_opened_again_and_fits_small_windows(
    start: Start, hub: HubServer
) -> None:
    run = await start(size=(50, 14), engine=FakeEngine(["ok"]))
    await run.app.run_action("app.setup")
    await run.sees("This machine", "RAM")
    await run.press("enter")
    await run.sees("Qwen3-30B-A3B", "GB")
    assert all(len(line) <= 50 for line in run.lines())
    await run.pilot.resize_terminal(30, 6)
    await run.sees("too small")
    await run.pilot.resize_terminal(80, 24)
    await run.sees("Qwen3-30B-A3B")
