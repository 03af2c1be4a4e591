"""Exporting and importing from the screen, by keyboard alone at 80x24."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tui.conftest import Running, Start

SMALL = (80, 24)


async def chosen(run: Running, words: str) -> None:
    """Choose a command in the palette."""
    await run.press("ctrl+p")
    await run.until(lambda: len(run.app.screen_stack) > 1)
    await run.type(words)
    await run.sees(words)
    await run.pilot.pause(0.3)
    await run.press("enter")


async def test_a_session_goes_out_and_comes_in_again(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    run = await start("miaow", size=SMALL)
    await run.ask("about cats")
    for form, suffix in (("json", ".json"), ("html", ".html")):
        await chosen(run, f"Export as {form}")
        await run.sees(f"Export as {form}", f"~/about cats{suffix}")
        await run.press("enter")
        await run.sees("written: ~/about cats")
    page = (home / "about cats.html").read_text()
    assert "miaow" in page and "<script" not in page
    data = json.loads((home / "about cats.json").read_text())
    assert data["turns"][0]["reply"] == "miaow"
    await chosen(run, "Import sessions")
    await run.sees("ChatGPT")
    await run.type("about cats.json")
    await run.press("enter")
    await run.sees("1 session imported")
    assert len(run.chat.store.sessions()) == 2
    await chosen(run, "Import sessions")
    await run.type("about cats.html")
    await run.press("enter")
    await run.sees("cannot be imported", "It is no JSON")


async def test_a_file_that_is_there_is_not_overwritten(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    (home / "about cats.md").write_text("mine")
    run = await start("miaow", size=SMALL)
    await run.ask("about cats")
    await chosen(run, "Export as markdown")
    await run.sees("~/about cats 2.md")
    await run.press(*["backspace"] * 5)
    await run.type(".md")
    await run.press("enter")
    await run.sees("this file is there already")
    assert (home / "about cats.md").read_text() == "mine"
