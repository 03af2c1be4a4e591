"""The question before a key goes over a network in clear."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.common.threads import ask
from ktchat.screens.dialogs.dialogs import Question

if TYPE_CHECKING:
    from textual.app import App

    from engine.remote.address import Address
    from ktchat.library.servers import Servers


def ask_plain(
    app: App[object], servers: Servers, address: Address, then: Callable[[], object]
) -> None:
    """Ask once whether the key may go to a server in clear; after a yes `then` is called."""

    async def allow() -> None:
        await ask(servers.allow_plain, address)
        then()

    def answered(answer: str | None) -> None:
        if answer is not None:
            app.run_worker(allow(), group="plain key", exit_on_error=False)

    question = (
        f"{address.place} is not on a private network, and the connection is not encrypted: "
        "everybody on the way could read the key."
    )
    app.push_screen(Question(question, "Send the key, now and later", "Do not send it"), answered)
