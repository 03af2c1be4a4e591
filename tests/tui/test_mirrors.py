"""The question before the hub's token goes to a mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hub_server import HubServer
from tests.tui.conftest import Start
from tests.tui.hub import hub

__all__ = ["hub"]
NOWHERE = "https://127.0.0.2:9"
QUESTION = "is not the hub"


@pytest.mark.parametrize("yes", [True, False])
async def test_a_mirror_is_asked_about_once(
    start: Start, hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch, yes: bool
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    run = await start("ok")
    await run.press("ctrl+o")
    await run.sees(QUESTION)
    if yes:
        await run.press("down")
    await run.press("enter")
    downloads = run.screen.context.downloads
    await run.until(lambda: downloads.mirrors.says(NOWHERE) is yes)
    await run.misses(QUESTION)
    await run.press("escape")
    await run.until(lambda: run.app.screen is run.screen)
    await run.press("ctrl+o")
    await run.sees("downloads")
    await run.until(lambda: all(one.group != "mirror" for one in run.app.workers))
    assert QUESTION not in run.text()
    assert (home / "mirrors.toml").exists() is yes
    assert bool(downloads.hub.access.token) is yes
