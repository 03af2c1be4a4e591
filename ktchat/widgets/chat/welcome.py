"""The welcome, which stands where the conversation will be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from ktchat import __version__
from ktchat.widgets.lines import BLANK, Line, styled, wrap

QUESTIONS = (
    "What can you do?",
    "How do I open a model of my own?",
    "What is a mixture of experts?",
)
"""What the built-in guide can be asked; another model gets no questions of ours."""


class Welcome(Widget):
    """What to ask, and how to open a model."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"name", "dim", "key", "action"}

    @dataclass
    class Asked(Message):
        """A question was clicked."""

        text: str

    def __init__(self) -> None:
        super().__init__()
        self.auto_links = False
        self._model = ""
        self._questions: tuple[str, ...] = ()

    def show_model(self, name: str, guide: bool) -> None:
        """Name the model that answers; questions are offered where it is the guide."""
        self._model = name
        self._questions = QUESTIONS if guide else ()
        self.refresh(layout=True)

    def render(self) -> Content:
        width = max(4, self.content_size.width)
        lines = [
            Line(styled("ktchat", ".name") + styled(f" {__version__}", ".dim")),
            *wrap(styled("Chat with mixture-of-experts models on this machine.", ".dim"), width),
            BLANK,
            *wrap(styled(f"Ask {self._model or 'anything'}", ".dim"), width),
        ]
        for question in self._questions:
            ask = styled(question, ".action", ("ask", (question,)))
            lines.append(Line(Content("  ") + ask))
        lines.append(BLANK)
        for key, words, action in (
            ("Ctrl+O", "models: open one, download one", "screen.models"),
            ("Ctrl+P", "themes and everything else", "app.command_palette"),
            ("F1    ", "all keys", "screen.help"),
        ):
            lines.append(Line(styled(key, ".key", (action, ())) + styled(f"  {words}", ".dim")))
        return Content("\n").join([line.content for line in lines])

    def action_ask(self, question: str) -> None:
        """Send a question."""
        self.post_message(self.Asked(question))
