"""Makes foreign text safe to draw on a terminal.

Everything that a model, a file's metadata, a file name or an error says passes here before it is
shown. Removed are control characters except newline and tab, escape sequences with their payload,
bidirectional overrides and isolates; runs of combining marks are cut. Emoji sequences, accents,
right-to-left and wide text stay.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

MAX_MARKS, MAX_FORMATS = 2, 1
"""Of one run of zero-width characters so many combining marks are kept, and format characters: Vietnamese and Thai
take two marks, an emoji a mark and a joiner. More would smear over the lines around, or carry a hidden text."""

MAX_STRING = 4096
"""Characters of an OSC, DCS, APC, PM or SOS payload that are swallowed; the rest is plain text."""

MAX_CSI = 64
"""Parameter characters of a CSI sequence that are swallowed."""

_ESC = "\x1b"
_SUSPECT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = {"\u2028": "\n", "\u2029": "\n"}
_STRINGS = frozenset("]PX^_\x9d\x90\x98\x9e\x9f")
"""What follows ESC (or the C1 form) to open a control string: OSC, DCS, SOS, PM, APC."""


class Sanitiser:
    """Sanitises text that arrives in pieces; the result does not depend on where it was cut.

    After ECMA-48 (control functions) and the parser of P. Williams, vt100.net/emu/dec_ansi_parser.
    """

    def __init__(self) -> None:
        self._state = "ground"  # ground | escape | csi | string
        self._length = 0  # characters swallowed in the present sequence
        self._after_cr = False
        self._run = ""  # zero-width characters at the end of what was let through

    def feed(self, text: str) -> str:
        """The part of `text` that may be shown."""
        clean = self._without_controls(text)
        return self._without_smear(clean)

    def _without_controls(self, text: str) -> str:
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._state == "ground":
                at = self._ground(text, at, out)
            else:
                at = _STEPS[self._state](self, text, at)
        return "".join(out)

    def _ground(self, text: str, at: int, out: list[str]) -> int:
        if self._after_cr:
            self._after_cr = False
            if text[at] == "\n":  # the newline of a CR LF was written with its CR
                return at + 1
        found = _SUSPECT.search(text, at)
        if found is None:
            out.append(text[at:])
            return len(text)
        out.append(text[at : found.start()])
        char = found.group()
        if char == "\r":
            out.append("\n")
            self._after_cr = True
        elif char == _ESC:
            self._enter("escape")
        elif char == "\x9b":
            self._enter("csi")
        elif char in _STRINGS:
            self._enter("string")
        elif "\ud800" <= char <= "\udfff":
            out.append("\ufffd")
        else:
            out.append(_BREAKS.get(char, ""))
        return found.end()

    def _enter(self, state: str) -> None:
        self._state = state
        self._length = 0

    def _escape(self, text: str, at: int) -> int:
        char = text[at]
        if char == "[":
            self._enter("csi")
        elif char in _STRINGS and char < "\x80":
            self._enter("string")
        elif " " <= char <= "/":
            pass  # an intermediate character: the final one follows
        else:
            self._state = "ground"
            return at + 1 if "0" <= char <= "~" else at
        return at + 1

    def _csi(self, text: str, at: int) -> int:
        char = text[at]
        self._length += 1
        if " " <= char <= "?" and self._length <= MAX_CSI:
            return at + 1
        self._state = "ground"
        return at + 1 if "@" <= char <= "~" else at

    def _string(self, text: str, at: int) -> int:
        char = text[at]
        self._length += 1
        if char in "\x07\x9c":
            self._state = "ground"
            return at + 1
        if char == _ESC or char in "\n\r\x18\x1a" or self._length > MAX_STRING:
            self._state = "ground"  # ESC \ is read as an escape of its own
            return at
        return at + 1

    def _without_smear(self, text: str) -> str:
        if not text:
            return text
        if text.isascii():
            self._run = ""
            return text
        runs = _mark_runs()
        # What goes on from an earlier piece is cut as one run with it.
        clean = runs.sub(lambda run: _cut(run.group()), self._run + text)
        shown = clean[len(self._run) :]
        self._run = _last_run(clean)
        return shown


_STEPS = {
    "escape": Sanitiser._escape,
    "csi": Sanitiser._csi,
    "string": Sanitiser._string,
}


@cache
def _mark_runs() -> re.Pattern[str]:
    """Runs of zero-width characters. Built at the first text that is not ASCII (a few ms)."""
    blocks = ((0xAD, 0x3100), (0xA600, 0xAC00), (0xFB00, 0x12000), (0x16A00, 0x1F000))
    codes = [code for low, high in blocks for code in range(low, high)]
    codes += [*range(0xE0000, 0xE01F0)]
    marks = [code for code in codes if unicodedata.category(chr(code)) in ("Mn", "Me", "Cf")]
    # A class with characters beyond U+FFFF is searched range by range: those have their own.
    near = _as_class([code for code in marks if code <= 0xFFFF])
    far = _as_class([code for code in marks if code > 0xFFFF])
    return re.compile(f"(?:{near}|(?=[\U00010000-\U0010ffff]){far})+")


def _as_class(codes: list[int]) -> str:
    """A regular expression's class of these characters, written in ranges."""
    members = set(codes)
    starts = [code for code in codes if code - 1 not in members]
    ends = [code for code in codes if code + 1 not in members]
    pairs = zip(starts, ends, strict=True)
    return "[" + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in pairs) + "]"


def _cut(run: str) -> str:
    """What is kept of a run of zero-width characters. Tags, which only ever hide text, are none of it."""
    kept, marks, formats = [], 0, 0
    for char in run:
        if "\U000e0000" <= char <= "\U000e007f":
            continue
        if unicodedata.category(char) == "Cf":
            formats += 1
            if formats <= MAX_FORMATS:
                kept.append(char)
        else:
            marks += 1
            if marks <= MAX_MARKS:
                kept.append(char)
    return "".join(kept)


def _last_run(text: str) -> str:
    """The zero-width characters at the end of a text whose runs are cut."""
    tail = text[-MAX_MARKS - MAX_FORMATS :]
    runs = list(_mark_runs().finditer(tail))
    return runs[-1].group() if runs and runs[-1].end() == len(tail) else ""


def sanitise(text: str) -> str:
    """The part of a whole text that may be shown."""
    return Sanitiser().feed(text)


def one_line(text: str, limit: int = 200) -> str:
    """A text for a title, a status bar or an error: one line of at most `limit` characters."""
    line = " ".join(sanitise(text[: limit * 8]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
