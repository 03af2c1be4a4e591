"""The palette: one row a command, its key at the right, found by a few characters."""

from __future__ import annotations

from textual.app import SystemCommand

from ktchat.common import usage
from ktchat.screens.chat.command_dialog import USUAL, found, ordered
from tests.tui.conftest import Start


def command(title: str, words: str = "") -> SystemCommand:
    return SystemCommand(title, words, lambda: None)


def titles(commands: list[SystemCommand]) -> list[str]:
    return [one.title for one in commands]


def test_the_usual_ones_come_first_then_those_used_most() -> None:
    commands = [command(title) for title in ("Zebra", "Quit", "Apple", "New session", "Pear")]
    assert titles(ordered(commands, {"Pear": 3, "Apple": 1})) == [
        *("New session", "Quit", "Pear", "Apple", "Zebra"),
    ]


def test_a_few_characters_find_a_command_and_words_its_help() -> None:
    commands = [command("Copy code", "The last block"), command("New session"), command("Continue")]
    assert [one.title for one, _ in found(commands, "nws")] == ["New session"]
    assert [one.title for one, _ in found(commands, "block")] == ["Copy code"]
    assert next(one.title for one, _ in found(commands, "co")) in ("Copy code", "Continue")
    assert found(commands, "qqq") == []


async def test_each_command_has_one_row_with_its_key(start: Start) -> None:
    run = await start(size=(100, 40))
    await run.press("ctrl+p")
    await run.sees("New session", "a command")
    rows = [line.strip() for line in run.lines()]
    at = next(y for y, row in enumerate(rows) if row.startswith("New session"))
    assert [row.split("  ")[0] for row in rows[at : at + len(USUAL)]] == list(USUAL)
    assert rows[at].endswith("Ctrl+N")
    assert next(row for row in rows if row.startswith("Copy reply")).endswith("F3")
    await run.press("escape")
    await run.until(lambda: run.app.screen is run.screen)


async def test_what_was_chosen_is_done_and_remembered(start: Start) -> None:
    run = await start("the reply")
    await run.ask("hi")
    await run.press("ctrl+p")
    await run.type("renam")
    await run.press("enter")
    await run.sees("Title of the session")
    await run.until(lambda: usage.commands_used().get("Rename") == 1)


async def test_characters_that_mean_nothing_are_answered(start: Start) -> None:
    run = await start(size=(40, 12))
    await run.press("ctrl+p")
    await run.sees("New session")
    await run.type("qqqq")
    await run.sees("nothing is called so")
    await run.press("enter", "escape")
    await run.until(lambda: run.app.screen is run.screen)
