"""What the plain chat writes: lines of the program, and the model's words as they come, whole."""

from __future__ import annotations

import re
import sys
import time

from ktchat.cli import output

MARK = "ktchat: "
"""Begins what the program says; no line of a model does."""
PROGRESS_SECONDS = 5.0
"""Between two lines on one piece of work, and before the first."""
MOST_HELD = 400
"""Characters without a break that are held back."""

_BREAK = re.compile(r".*[\s\u2e80-\uffdc\U00020000-\U0003ffff]", re.DOTALL)
"""Text up to the last place where it may be cut: behind white space, or a character that is a word by itself."""


class Voice:
    """Writes on standard output, for one thread at a time."""

    def __init__(self) -> None:
        self._by_words = output.is_terminal(sys.stdout)
        self._held = ""  # of the model's, no whole word yet
        self._at_line_start = True
        self._said_at = time.monotonic()

    def say(self, words: str) -> None:
        """Lines of the program, each with the mark."""
        self.finish()
        for line in words.splitlines() or [""]:
            output.line(f"{MARK}{line}".rstrip())

    def item(self, words: str) -> None:
        """A line of a list that `say` has announced."""
        self.finish()
        output.line(words)

    def echo(self, words: str) -> None:
        """A message that no terminal has shown while it was typed."""
        self.finish()
        output.line(words)

    def tell(self, text: str) -> None:
        """A text of the conversation, all of it."""
        self.speak(text)
        self.finish()

    def speak(self, text: str) -> None:
        """More of the model's text, safe to draw; it is written as far as there are whole words, or into a file whole lines."""
        self._held += text
        if not self._by_words:
            end = self._held.rfind("\n") + 1
        else:
            found = _BREAK.match(self._held)
            end = found.end() if found else 0
        if not end and len(self._held) > MOST_HELD:
            end = len(self._held)
        text, self._held = self._held[:end], self._held[end:]
        self._write(text)

    def finish(self) -> None:
        """Write what is held, and end its line."""
        text, self._held = self._held, ""
        self._write(text)
        if not self._at_line_start:
            self._write("\n")

    def begin_work(self) -> None:
        """Something begins that may take long."""
        self._said_at = time.monotonic()

    def progress(self, words: str) -> None:
        """How far it is, now and then."""
        now = time.monotonic()
        if now - self._said_at >= PROGRESS_SECONDS:
            self._said_at = now
            self.say(words)

    def _write(self, text: str) -> None:
        lines = []
        for line in text.splitlines(keepends=True):
            forged = self._at_line_start and line.startswith(MARK.strip())
            lines.append(f" {line}" if forged else line)
            self._at_line_start = line.endswith("\n")
        if text:
            output.write("".join(lines))
