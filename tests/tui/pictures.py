"""Pictures of the model screens from a real run: `python -m tests.tui.pictures [FOLDER]`.

The machine, the catalogue, the plans, the engine and the downloads are real; the hub is the local
one of the tests, with a tiny model, at a rate at which there is something to see.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.hub_server import HubServer, Repo, hub_server
from tests.tui.hub import REPO, split_model

SIZE = (100, 32)


class Run:
    """One run of the program, photographed."""

    def __init__(self, folder: Path, hub: HubServer) -> None:
        from ktchat.app import KtchatApp

        self.app, self.folder, self.hub = KtchatApp(), folder, hub

    async def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"not reached; on the screen:\n{self.text()}")
            await asyncio.sleep(0.05)
        await self.pilot.pause()

    def text(self) -> str:
        return "\n".join(strip.text for strip in self.app.screen._compositor.render_strips())

    async def sees(self, *words: str) -> None:
        await self.until(lambda: all(word in self.text() for word in words))

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def shoot(self, name: str) -> None:
        await asyncio.sleep(0.3)
        self.app.save_screenshot(f"{name}.svg", str(self.folder))

    async def all(self) -> None:
        async with self.app.run_test(size=SIZE) as self.pilot:
            await self.sees("RAM", "reads")
            await self.shoot("setup-machine")
            await self.press("enter")
            await self.sees("Qwen3-30B-A3B")
            await self.press("down")
            await self.shoot("setup-models")
            await self.press("i")
            await self.sees("suits this machine", "limited by")
            await self.until(lambda: self.text().count("tok/s") > 4)
            await self.shoot("models-plan")
            await self.press("escape", "g")
            await self.until(lambda: self.app.screen is self.app.chat_screen)
            await self.until(lambda: not self.app.chat_screen.activity.loading)
            await self.press("ctrl+o", "2")
            await self.sees("Qwen3-30B-A3B")
            await self.press("down", "down")
            await self.shoot("models-catalogue")
            await self.press("3", *"tiny", "enter")
            await self.sees(REPO, "CPU")
            await self.shoot("models-search")
            await self.press("enter")
            await self.sees("suits this machine", "Writes")
            self.hub.rate = 400_000
            await self.press("enter")
            await self.sees("4 downloads", "left")
            await self.until(lambda: self.app.context.downloads.states()[0].done > 3_500_000)
            await self.shoot("downloads")
            await self.press("escape")
            await self.press(*"What can you do", "question_mark", "enter")
            chat = self.app.chat_screen.chat
            assert chat is not None
            await self.until(lambda: chat.conversation.last and not chat.busy)
            await self.until(lambda: "downloading" in self.app.chat_screen.status.words)
            await self.shoot("downloads-chat")
            self.hub.rate = 0
            await self.sees("is here")
            await self.press("ctrl+o", "1")
            await self.sees("tiny qwen3moe", "ktchat guide")
            await self.press("down")
            await self.shoot("models-installed")


def main() -> None:
    """Take all pictures."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "assets" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, hub_server() as hub:
        for name in ("KTCHAT_HOME", "HF_TOKEN", "HF_HUB_OFFLINE", "XDG_DATA_HOME", "HF_HOME"):
            os.environ.pop(name, None)
        os.environ |= {"HOME": home, "HF_ENDPOINT": hub.endpoint}
        os.environ |= {"XDG_CACHE_HOME": f"{home}/.cache", "XDG_CONFIG_HOME": f"{home}/.config"}
        (Path(home) / "source").mkdir()
        hub.repos[REPO] = Repo(split_model(Path(home) / "source"), downloads=1200)
        asyncio.run(Run(folder, hub).all())


if __name__ == "__main__":
    main()
