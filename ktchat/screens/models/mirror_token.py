"""The question before the hub's token goes to a mirror."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.common.text import one_line
from ktchat.screens.dialogs.dialogs import Question

if TYPE_CHECKING:
    from textual.screen import Screen

    from ktchat.library.mirrors import Mirrors


def ask_mirror(
    screen: Screen[str | None], mirrors: Mirrors, endpoint: str, say: Callable[[str, str], object]
) -> None:
    """Ask whether the token may go to the mirror at `endpoint`. A no holds until the program ends."""

    async def keep(yes: bool) -> None:
        try:
            await ask(mirrors.answer, endpoint, yes)
        except KtchatError as error:  # it holds all the same
            say(str(error), "error")

    def answered(answer: str | None) -> None:
        screen.run_worker(keep(answer == "yes"), group="mirror", exit_on_error=False)

    question = (
        f"HF_ENDPOINT names {one_line(endpoint, 200)}, which is not the hub: whoever runs it would get "
        "your token for huggingface.co."
    )
    dialog = Question(question, "Send the token, now and later", "Ask there without the token")
    screen.app.push_screen(dialog, answered)
