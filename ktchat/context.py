"""What all screens share: the settings, the downloads, the open chat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.errors import KtchatError
from ktchat.common.settings import SettingsFile
from ktchat.library.downloads import Downloads

if TYPE_CHECKING:
    from ktchat.library.servers import Servers
    from ktchat.session.chat import ChatSession
    from ktchat.store.saver import Notify, Severity


def _silent(words: str, severity: Severity) -> None:
    """What is said before there is a screen to say it on."""


@dataclass
class AppContext:
    """Made before the first screen, and handed to every one."""

    settings: SettingsFile
    downloads: Downloads
    chat: ChatSession | None = None
    """Comes after the first frame."""
    notify: Notify = _silent
    """Says something on the chat screen."""
    endpoint: str = ""
    """The server that the command line names."""

    @cached_property
    def servers(self) -> Servers:
        """The person's servers, and what opens each."""
        from ktchat.library.servers import Servers

        return Servers(endpoint=self.endpoint)

    @property
    def replying(self) -> bool:
        """Whether a reply is being written."""
        return self.chat is not None and self.chat.busy

    def remember(self, **changes: Any) -> None:
        """Change settings; ones that cannot be saved hold until the program ends."""
        try:
            self.settings.update(**changes)
        except KtchatError as error:
            self.notify(str(error), "warning")
