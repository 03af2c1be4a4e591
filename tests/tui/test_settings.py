"""The settings screen by keyboard: what holds and where from, changes, resets, presets, themes, edits of the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.protocol import PartialSampling
from ktchat.common.settings import SettingsFile
from ktchat.screens.settings.rows import ROWS
from ktchat.themes import DARK, LIGHT
from tests.support.fake_engine import FakeEngine
from tests.tui.conftest import Running, Start

SIZES = pytest.mark.parametrize("size", [(80, 24), (40, 12)])
ORDER = [row.name for row in ROWS]


async def opened(run: Running, at: str = "temperature") -> None:
    """Open the settings and go to one."""
    await run.press("ctrl+l")
    await run.until(lambda: "Settings" in run.lines()[0])
    await walk(run, at)


async def walk(run: Running, at: str) -> None:
    """Go to a setting with the cursor, as a person does."""
    table = run.app.screen.table  # type: ignore[attr-defined]
    await run.until(lambda: table.key)
    while table.key != at:
        step = ORDER.index(at) - ORDER.index(table.key)
        key = table.key
        await run.press("down" if step > 0 else "up")
        await run.until(lambda key=key: table.key != key)


async def fill_in(run: Running, text: str) -> None:
    """Put a text in the place of what a field holds."""
    await run.press("ctrl+u", "ctrl+k")
    await run.type(text)
    await run.press("enter")


async def says(run: Running, words: str) -> None:
    """Wait until the line below the rows says it, however it is wrapped."""
    await run.until(lambda: words in run.app.screen.status.words)  # type: ignore[attr-defined]


def row(run: Running, title: str) -> str:
    return next(line for line in run.lines() if title in line[:18])


async def typed(run: Running, at: str, text: str, tabs: int = 0) -> None:
    """Change the value under the cursor by typing it."""
    await walk(run, at)
    await run.press("enter")
    await run.sees("Enter keep")
    await run.press(*["tab"] * tabs)
    await fill_in(run, text)
    await run.misses("Enter keep")


@SIZES
async def test_a_value_is_changed_for_a_session_and_reset(
    start: Start, size: tuple[int, int]
) -> None:
    own = PartialSampling(temperature=0.6)
    run = await start(engine=FakeEngine(["a"], own_sampling=own), size=size)
    await run.ask("hi")
    await opened(run)
    await run.sees("temperature", "0.6", "the model's file")
    await typed(run, "temperature", "1.25")
    await run.sees("this session 1.25")
    assert run.chat.conversation.choices == {"temperature": 1.25}
    await run.press("right")
    await run.sees("this session 1.3")
    await run.press("escape")
    await run.sees("Ask anything")
    await run.ask("again")
    assert [request.sampling.temperature for request in run.engine.requests] == [0.6, 1.3]
    again = await start(engine=FakeEngine(["a"], own_sampling=own), size=size)
    await opened(again)
    await again.sees("this session 1.3")
    await again.press("delete")
    await says(again, "This session is open in another ktchat")
    await opened(run)
    await run.press("delete")
    await says(run, "temperature: 0.6 again (the model's file)")
    assert run.chat.conversation.choices == {}
    await run.press("delete")
    await says(run, "nothing of yours")


async def test_what_is_kept_wider_takes_the_nearer_away_and_says_so(start: Start) -> None:
    run = await start("a", size=(80, 24))
    await opened(run)
    await typed(run, "temperature", "0.1")
    await typed(run, "temperature", "0.2", tabs=1)
    await says(run, "for this model; what was set for this session is taken away")
    assert run.chat.conversation.choices == {}
    assert run.chat.layers.model == {"temperature": 0.2}
    await typed(run, "temperature", "0.3", tabs=1)
    await says(run, "everywhere; what was set for this model is taken away")
    assert run.chat.layers.sampling.temperature == 0.3
    text = (run.screen.context.settings.path).read_text()
    assert "temperature = 0.3" in text and "[model" not in text


async def test_a_model_s_file_goes_before_what_is_kept_everywhere_and_it_is_said(
    start: Start,
) -> None:
    own = PartialSampling(temperature=0.6)
    run = await start(engine=FakeEngine(["a"], own_sampling=own), size=(120, 30))
    await opened(run)
    await typed(run, "temperature", "0.2", tabs=2)
    await says(run, "but the model's file says 0.6 and goes before it")
    await run.sees("the model's file 0.6 · everywhere 0.2 · built in 0.7")
    await typed(run, "temperature", "0.2", tabs=1)
    await run.sees("this model 0.2 · the model's file 0.6 · everywhere 0.2")
    assert run.chat.layers.sampling.temperature == 0.2


@SIZES
async def test_what_is_impossible_is_refused_in_the_box(
    start: Start, size: tuple[int, int]
) -> None:
    run = await start("a", size=size)
    await opened(run, "top_k")
    await run.press("enter")
    await fill_in(run, "-3")
    await run.sees("type a number from 0 to")
    await fill_in(run, "all")
    await run.misses("Enter keep")
    assert run.chat.conversation.choices == {"top_k": 0}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "7", 7), ("seed", "random", -1), ("max_tokens", "2,048", 2048),
        ("max_tokens", "as the context allows", 0), ("min_p", "0", 0.0),
    ],
)  # fmt: skip
async def test_numbers_and_their_names_are_taken(
    start: Start, name: str, text: str, value: object
) -> None:
    run = await start("a", size=(80, 24))
    await opened(run)
    await walk(run, name)
    await run.press("enter")
    await run.sees("Enter keep")
    run.app.screen.query_one("Field").value = text  # type: ignore[attr-defined]
    await run.press("enter")
    await run.until(lambda: run.chat.conversation.choices == {name: value})


@SIZES
async def test_the_system_message_is_the_session_s(start: Start, size: tuple[int, int]) -> None:
    run = await start("a", size=size)
    await opened(run, "system")
    await run.press("enter")
    await run.sees("Ctrl+J line")
    await run.type("Be kind")
    await run.press("ctrl+j")
    await run.type("and short")
    await run.press("enter")
    await run.until(lambda: run.chat.conversation.system == "Be kind\nand short")
    await run.sees("system message", "Be kind and short")
    await run.press("escape")
    await run.ask("hi")
    assert run.engine.requests[0].messages[0].content == "Be kind\nand short"
    await run.press("ctrl+n")
    await run.until(lambda: run.chat.conversation.system == "")


async def test_thinking_and_overflow_are_chosen_from_lists_and_by_arrows(start: Start) -> None:
    run = await start(engine=FakeEngine(["a"], think=("low", "medium", "high")), size=(80, 24))
    await opened(run, "think")
    await run.press("enter")
    await run.sees("high", "Enter keep")
    await run.press("down", "enter")
    await run.until(lambda: run.chat.conversation.think == "high")
    await run.press("left")
    await run.until(lambda: run.chat.conversation.think == "medium")
    await walk(run, "overflow")
    await run.press("right")
    await run.until(lambda: run.screen.context.settings.settings.overflow == "drop")
    await run.press("delete")
    await run.until(lambda: run.screen.context.settings.settings.overflow == "ask")
    await run.press("escape")
    await run.until(lambda: "thinking: medium" in run.lines()[0])


async def test_what_needs_the_model_loaded_again_says_so_and_offers_it(start: Start) -> None:
    run = await start("a", size=(80, 24))
    await opened(run, "context")
    await run.sees("The model has to be loaded again for it")
    await typed(run, "context", "2048", tabs=1)
    await run.sees("not yet: l", "l load the model again")
    assert len(run.engine.loads) == 1
    await run.press("escape")
    await says(run, "the model still runs as it was loaded: context  load the model again")
    await opened(run, "context")
    await run.sees("not yet: l")
    await run.press("l")
    await run.until(lambda: len(run.engine.loads) == 2 and not run.screen.activity.loading)
    assert run.engine.loads[-1].context == 2048
    await run.sees("Ask anything")
    await opened(run, "context")
    await run.sees("2")
    await run.misses("not yet: l")
    await run.press("l")
    await says(run, "loaded as the settings say")


async def test_the_command_line_holds_until_it_is_reset(start: Start) -> None:
    from ktchat.common.settings import Overrides

    run = await start("a", size=(80, 24))
    run.screen.context.settings.overrides = Overrides(kv="q8")
    await opened(run, "kv")
    await run.sees("command line 8 bits · built in 16 bits")
    await run.press("delete")
    await says(run, "KV cache: 16 bits again (built in)")
    assert run.screen.context.settings.overrides == Overrides()


# Presets.


@SIZES
async def test_presets_are_applied_kept_renamed_forgotten_and_brought_back(
    start: Start, size: tuple[int, int]
) -> None:
    run = await start("a", size=size)
    await opened(run)
    await run.press("p")
    await run.sees("precise", "balanced", "creative")
    await run.press("home", "down", "enter")
    await says(run, "preset: precise, for this session")
    assert run.chat.layers.sampling.temperature == 0.2
    assert row(run, "preset").split()[-2 if size[0] < 60 else 1] in ("preset", "precise")
    await typed(run, "top_k", "11")
    await run.press("p", "s")
    await run.sees("Keep what holds now as")
    await run.type("mine")
    await run.press("enter")
    file = run.screen.context.settings
    await run.until(lambda: "mine" in file.said.presets)
    assert file.said.presets["mine"]["top_k"] == 11
    await run.press("f2")
    await run.sees("Name of the preset")
    await run.type("mine2")
    await run.press("enter")
    await run.until(lambda: list(file.said.presets) == ["mine2"])
    await run.press("delete")
    await run.until(lambda: not file.said.presets)
    await run.press("u")
    await run.until(lambda: list(file.said.presets) == ["mine2"])
    await run.press("home", "enter")
    await run.until(lambda: run.chat.conversation.choices == {})
    await run.press("p", "end", "enter")
    await run.until(lambda: run.chat.conversation.choices.get("top_k") == 11)
    assert SettingsFile(file.path).said.presets == file.said.presets


async def test_ours_stay_and_a_name_that_is_taken_is_asked_about(start: Start) -> None:
    run = await start("a", size=(80, 24))
    run.screen.context.settings.keep_preset("mine", {"top_k": 5, "system": "S"})
    await opened(run)
    await run.press("p", "home", "down", "delete")
    await run.sees("comes with ktchat and stays")
    await run.press("s")
    await run.sees("Keep what holds now as")
    await run.type("creative")
    await run.press("enter")
    await run.sees("is a name of ktchat's")
    await run.press("s")
    await run.sees("Keep what holds now as")
    await run.type("mine")
    await run.press("enter")
    await run.sees("There is a preset “mine” already")
    await run.press("down", "enter")
    file = run.screen.context.settings
    await run.until(lambda: file.said.presets["mine"].get("temperature") == 0.7)
    await run.press("u")
    await run.until(lambda: file.said.presets == {"mine": {"top_k": 5, "system": "S"}})
    await run.press("end", "enter")
    await run.until(lambda: run.chat.conversation.system == "S")


# Themes.


async def test_a_theme_is_seen_before_it_is_kept(start: Start) -> None:
    run = await start("a", size=(80, 24))
    file = run.screen.context.settings
    await opened(run, "theme")
    await run.press("enter")
    await run.sees("Enter keep")
    await run.press("down")
    await run.until(lambda: run.app.theme == LIGHT)
    assert file.settings.theme == ""
    await run.press("escape")
    await run.until(lambda: run.app.theme == DARK)
    await run.press("enter", "down", "enter")
    await run.until(lambda: file.settings.theme == LIGHT and run.app.theme == LIGHT)
    await run.press("delete")
    await run.until(lambda: file.settings.theme == "" and run.app.theme == DARK)


async def test_the_palette_opens_the_same(start: Start) -> None:
    run = await start("a", size=(80, 24))
    commands = {c.title: c for c in run.app.get_system_commands(run.screen)}
    for title, words in (("Theme", LIGHT), ("Temperature", "0 to 10"), ("Presets", "creative")):
        commands[title].callback()
        await run.sees(words)
        await run.press("escape")
        await run.misses(words)
        await run.press("escape")
        await run.sees("Ask anything")
    commands["Settings"].callback()
    await run.sees("how it writes")
    await run.press("q")
    await run.sees("Ask anything")


# Edits from outside.


def edit(path: Path, text: str) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


async def test_an_edit_of_the_file_is_noticed_applied_and_said(start: Start) -> None:
    run = await start("a", size=(120, 30))
    path = run.screen.context.settings.path
    edit(path, path.read_text() + '\n[model."fake.gguf"]\ntop_k = 9\n')
    await says(run, "settings.toml was edited: top k of fake.gguf")
    assert run.chat.layers.sampling.top_k == 9
    edit(
        path,
        path.read_text()
        .replace('theme = ""', f'theme = "{LIGHT}"')
        .replace('kv = "f16"', 'kv = "q8"'),
    )
    await says(run, "settings.toml was edited: theme, kv · kv holds when the model is loaded again")
    assert run.app.theme == LIGHT
    await opened(run, "kv")
    await run.sees("not yet: l")


async def test_a_broken_edit_is_said_with_its_line_and_nothing_changes(start: Start) -> None:
    run = await start("a", size=(120, 30))
    path, before = run.screen.context.settings.path, run.screen.context.settings.said
    good = path.read_text()
    edit(path, "# a comment\ntop_k = = 3\n" + good)
    await says(
        run,
        "is damaged, what held before holds, and nothing is written into it: Invalid value (at line 2",
    )
    assert run.screen.context.settings.said == before
    await opened(run, "overflow")
    await run.press("right")
    await says(run, "cannot be saved")
    assert path.read_text().startswith("# a comment\ntop_k = = 3")
    edit(path, good.replace('overflow = "ask"', 'overflow = "stop"'))
    await run.until(lambda: run.screen.context.settings.settings.overflow == "stop")
    await run.sees("everywhere stop · built in ask")


async def test_a_theme_that_is_none_is_said(start: Start) -> None:
    run = await start("a", size=(120, 30))
    path = run.screen.context.settings.path
    edit(path, path.read_text().replace('theme = ""', 'theme = "neon"'))
    await says(run, "there is no theme “neon”")
    assert run.app.theme == DARK and 'theme = "neon"' in path.read_text()
