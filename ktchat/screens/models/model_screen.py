"""What the manager and the wizard share: the machine, the status line, queueing a download."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.library import plans, versions
from ktchat.library.downloads import title
from ktchat.screens.models.mirror_token import ask_mirror
from ktchat.screens.once import LeftOnce
from ktchat.widgets.bars import KeyBar, Status
from ktchat.widgets.too_small import is_too_small

if TYPE_CHECKING:
    from engine.machine.types import Hardware
    from ktchat.context import AppContext
    from ktchat.library.versions import Choice


class ModelScreen(LeftOnce[str | None]):
    """A screen on which models are chosen. Dismissed with the path of one, or with None."""

    DEFAULT_CSS = "ModelScreen.-small > * { display: none; }"

    def __init__(self, context: AppContext) -> None:
        super().__init__()
        self.context = context
        self.status = Status()
        self.key_bar = KeyBar(())
        self._hardware: Hardware | None = None
        self._looking = asyncio.Lock()

    def on_mount(self) -> None:
        self.run_worker(self._ask_about_mirror(), group="mirror", exit_on_error=False)

    async def _ask_about_mirror(self) -> None:
        """Ask once whether the token may go to a mirror of the hub, before anything is sent."""
        mirror = await ask(self.context.downloads.mirror_to_ask)
        if mirror:
            ask_mirror(self, self.context.downloads.mirrors, mirror, self.say)

    def fit(self) -> None:
        """In a window that is too small only that is said."""
        self.set_class(is_too_small(self.app.size), "-small")

    def say(self, words: str, severity: str = "information") -> None:
        """Words under the list, made safe to draw."""
        self.status.say(words, severity)

    async def machine(self) -> Hardware:
        """This machine; looked at once, its memory measured when nothing else goes on."""
        async with self._looking:
            if self._hardware is None:
                device = self.context.settings.load("").device
                found = await ask(plans.machine, False, device=device)
                if not found.memory.read_gb_s and not self.context.replying:
                    found = await ask(plans.machine, True, device=device)
                self._hardware = found
            return self._hardware

    def choose(self, choice: Choice) -> None:
        """Let the person choose a version, then download it."""
        from ktchat.screens.models.choose import ChooseScreen

        def chosen(number: int | None) -> None:
            if number is not None:
                self.pull(choice, number)

        self.app.push_screen(ChooseScreen(choice), chosen)

    def pull(self, choice: Choice, number: int) -> None:
        """Ask the hub for a version's files and queue them."""
        self.run_worker(self._pull(choice, number), group="pull", exit_on_error=False)

    async def _pull(self, choice: Choice, number: int) -> None:
        self.say(f"asking the hub for {choice.title} {choice.versions[number].label}")
        try:
            model = await ask(choice.model, number)
            key = await ask(self.context.downloads.add, model)
        except KtchatError as error:
            await self.refused(choice, error)
            return
        self.say(f"{title(key)} is being downloaded")
        self.pulling(key)

    async def refused(self, choice: Choice, error: KtchatError) -> None:
        """Say why nothing is downloaded; where the repository has other versions, show them."""
        from engine.hub.errors import NoModelError

        self.say(str(error), "error")
        if isinstance(error, NoModelError) and isinstance(choice, versions.CatalogueChoice):
            repo = choice.model_.repository
            self.choose(versions.HubChoice(repo, choice.hardware, choice.hub))

    def pulling(self, key: str) -> None:
        """A download was queued."""
