"""What the person types: lines, and messages of several lines. Blocks; only the main thread reads.

On a terminal GNU readline edits the line. It is told that the terminal is dumb, so that it writes no
escape sequences either.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from unicodedata import east_asian_width

from ktchat.cli import output

PASTE_SECONDS = 0.1
"""Lines that come so soon behind each other were pasted: they are one message."""
FENCE = '"""'
MAX_LINE = 16 << 20
YOU, MORE = "You: ", "more: "


class Reader:
    """Reads standard input. `at_terminal`: a person types there, and may be asked."""

    def __init__(self) -> None:
        self.at_terminal = output.is_terminal(sys.stdin)
        self.edits = self.at_terminal and output.is_terminal(sys.stdout)
        """Whether lines are edited by readline."""
        self.unfinished = ""
        """What was typed of a message that was not ended."""
        self.pasted = 0
        """Lines of the last message that came at once; 0: they were typed."""
        self._bytes = b""  # read, and no whole line yet
        self._ahead: list[tuple[str, bool]] = []  # lines typed ahead; whether with the one before
        self._over = False
        if self.edits:
            os.environ["TERM"] = "dumb"
            try:
                import readline
            except ImportError:  # a Python without it
                self.edits = False
            else:
                readline.parse_and_bind("set enable-bracketed-paste off")
                readline.parse_and_bind("set bell-style none")
                readline.set_auto_history(False)

    # Lines.

    def line(self, prompt: str, prefill: str = "") -> str:
        """One line. Raises `EOFError` at the end of the input; an interrupt passes through."""
        if self._ahead:
            return self._ahead.pop(0)[0]
        if self.edits:
            return self._edited(prompt, prefill)
        if self.at_terminal:
            output.write(prompt)
        while b"\n" not in self._bytes:
            data = b"" if self._over else _read()
            if not data:
                self._over = True
                break
            self._bytes += data
            if len(self._bytes) > MAX_LINE:
                raise EOFError
        line, end, self._bytes = self._bytes.partition(b"\n")
        if not (line or end):
            raise EOFError
        return _text(line).removesuffix("\r")

    def _edited(self, prompt: str, prefill: str) -> str:
        import readline

        typed, self._bytes = _text(self._bytes), b""
        text = prefill + typed

        def fill() -> None:
            readline.insert_text(text)

        output.flush()
        readline.set_startup_hook(fill if text else None)
        try:
            return input(prompt)
        except UnicodeDecodeError:
            return ""
        finally:
            readline.set_startup_hook(None)

    # Messages.

    def message(self, prefill: str = "") -> str:
        """The next message: a line, or several: a line ends with a backslash, or all stands between two `\"\"\"`,
        or they were pasted at once. Raises `EOFError`."""
        self.unfinished, self.pasted = "", 0
        lines: list[str] = []
        try:
            for line in self._lines(prefill):
                lines.append(line)
                self.unfinished = "\n".join(lines)
        except BaseException as end:  # whatever ends it: what was typed is not lost
            self.unfinished = "\n".join([*lines, *self._begun(end)])
            raise
        self.unfinished = ""
        text = "\n".join(lines)
        self.remember([text])
        return text

    def _lines(self, prefill: str) -> Iterator[str]:
        line = self.line(YOU, prefill)
        if line.lstrip().startswith(FENCE):
            line = line.lstrip().removeprefix(FENCE)
            while not line.rstrip().endswith(FENCE):
                if line:
                    yield line
                line = self.line(MORE)
            yield line.rstrip().removesuffix(FENCE)
            return
        while line.endswith("\\"):
            yield line[:-1]
            line = self.line(MORE)
        yield line
        if line.startswith("/"):
            return
        number = 1
        while self.at_terminal and self._more_at_once():
            yield self.line("")
            number += 1
            self.pasted = number

    def _begun(self, end: BaseException) -> Iterable[str]:
        """The line that was being typed when something ended it."""
        if self.edits and not isinstance(end, EOFError):
            import readline

            with contextlib.suppress(ValueError):
                if begun := readline.get_line_buffer():
                    return [begun]
        return []

    def _more_at_once(self) -> bool:
        if self._ahead:
            return self._ahead[0][1]
        return b"\n" in self._bytes or bool(select.select([0], [], [], PASTE_SECONDS)[0])

    # While something else goes on, the terminal itself takes lines.

    def typed(self) -> list[list[str]]:
        """What was typed while something went on, lines that came at once together. Raises `EOFError`."""
        while select.select([0], [], [], 0)[0]:
            data = _read()
            if not data:
                raise EOFError
            self._bytes += data.replace(b"\r", b"\n")
        whole, end, self._bytes = self._bytes.rpartition(b"\n")
        if not end:
            return []
        lines = _text(whole).split("\n")
        return [[line] for line in lines] if lines[0].startswith("/") else [lines]

    def wait_with(self, lines: Sequence[str]) -> None:
        """Keep lines that were typed ahead: they come next."""
        self._ahead += [(line, number > 0) for number, line in enumerate(lines)]

    @property
    def is_waiting(self) -> bool:
        """Whether the next message was typed ahead, at least its beginning."""
        return bool(self._ahead)

    @property
    def left(self) -> str:
        """All that was typed and is no message yet."""
        ahead = (line for line, _ in self._ahead)
        parts = [self.unfinished, *ahead, _text(self._bytes) if self.at_terminal else ""]
        return "\n".join(part for part in parts if part.strip())

    # Editing.

    def fits(self, text: str) -> bool:
        """Whether a text can stand in the line from its beginning: a longer one would be shown from its end."""
        width = sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
        return "\n" not in text and len(YOU) + width < shutil.get_terminal_size().columns - 1

    def remember(self, messages: Sequence[str]) -> None:
        """Put messages behind the history, the newest last."""
        if self.edits:
            import readline

            for text in messages:
                if text.strip():
                    readline.add_history(text)

    def complete(self, names: Sequence[str]) -> None:
        """Complete these commands at the beginning of a line, by Tab."""
        if self.edits:
            import readline

            def completed(text: str, state: int) -> str | None:
                found = [name for name in names if name.startswith(text)] if text else []
                return f"{found[state]} " if state < len(found) else None

            readline.set_completer_delims(" \n")
            readline.set_completer(completed)
            readline.parse_and_bind("tab: complete")


def _read() -> bytes:
    """What is there of standard input; nothing: it is at its end, or its terminal is gone."""
    try:
        return os.read(0, 1 << 16)
    except OSError:
        return b""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
