"""What waits for the chat goes on as soon as it can, and not before."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ktchat.common.settings import SettingsFile
from ktchat.context import AppContext
from ktchat.library.downloads import Downloads
from ktchat.screens.chat.activity import Activity


async def test_what_waits_goes_on_when_what_it_waits_for_holds(tmp_path: Path) -> None:
    context = AppContext(SettingsFile(tmp_path / "settings.toml"), Downloads(tmp_path))
    activity = Activity(context)
    activity.loading = "/models/a.gguf"
    order: list[str] = []

    async def wait(name: str) -> None:
        await activity.until(lambda: not activity.loading)
        order.append(name)
        activity.loading = name  # the next one must wait for it

    tasks = [asyncio.create_task(wait(name)) for name in ("first", "second")]
    await asyncio.sleep(0)
    activity.changed()
    await asyncio.sleep(0)
    assert order == []
    activity.loading = ""
    activity.changed()
    await tasks[0]
    await asyncio.sleep(0)
    assert order == ["first"] and not tasks[1].done()
    activity.loading = ""
    activity.changed()
    await tasks[1]
    assert order == ["first", "second"] and not activity.ready
