"""Reads what a terminal sends, and lets nothing through that no person and no terminal means.

Textual's parser ends the program on some sequences, types others into the prompt, takes an ESC inside a
paste for the paste's end and believes any size that is reported. Here the stream is cut into pastes,
characters and whole escape sequences first; of the sequences Textual's parser gets those of a known form.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator

from textual import constants
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual._parser import ParseTimeout
from textual._xterm_parser import FOCUSIN, FOCUSOUT, XTermParser
from textual.events import Key, Paste
from textual.message import Message

PASTE_START, PASTE_END = "\x1b[200~", "\x1b[201~"

PASTE_SECONDS = 1.0
"""A paste that goes no further for so long has lost its end: what came is delivered."""

MAX_PASTE = 16 << 20
"""Characters of a paste that are kept; what follows is swallowed up to its end."""

MAX_SEQUENCE = 64
"""Characters of a control sequence (CSI); a longer one is swallowed and means nothing."""

MAX_STRING = 4096
"""Characters of a control string (OSC, DCS, APC, PM, SOS) that are swallowed."""

MAX_CELLS, MAX_CELL_PIXELS = 4096, 256
"""Columns or rows of a terminal, and pixels of a cell's side, that are believed."""

_PARAMETERS = rf"[0-?]{{0,{MAX_SEQUENCE}}}[ -/]{{0,4}}"
_STRING = rf"\x1b[\]PX^_][^\x07\x1b\n\r]{{0,{MAX_STRING}}}"
_POSITION = r"\x1b\[<[^mM\x1b\n\r]{0,32}"
_FORMS = (
    re.compile(r"\x1b\[M[^\x1b]{3}"),  # X10's mouse
    re.compile(rf"{_POSITION}[mM]"),
    re.compile(rf"\x1b\[(?:\[[A-E]|{_PARAMETERS}[@-Z\\-~])"),
    re.compile(rf"{_STRING}(?:\x07|\x1b\\)"),
    re.compile(r"\x1bO[ -~]"),
)
"""Whole sequences."""

_BEGUN = (
    re.compile(r"\x1b\[M[^\x1b]{0,2}\Z"),
    re.compile(rf"{_POSITION}\Z"),
    re.compile(rf"\x1b\[(?:\[|{_PARAMETERS})\Z"),
    re.compile(rf"{_STRING}\x1b?\Z"),
)
_PARAMETERS_ONLY = re.compile(r"\x1b\[[ -?]*")

_MOUSE = re.compile(r"\x1b\[<\d{1,3};-?\d{1,5};-?\d{1,5}[mM]")
_MODE = re.compile(r"\x1b\[\?(\d{1,5});\d\$y")
_CURSOR = re.compile(r"\x1b\[\d{1,5};\d{1,5}R")
_SIZE = re.compile(
    r"\x1b\[48;(\d{1,5})(?::\d*)*;(\d{1,5})(?::\d*)*;(\d{1,6})(?::\d*)*;(\d{1,6})(?::\d*)*t"
)
_KEY = re.compile(
    r"\x1b\[(?P<code>\d{0,7})(?::\d*)*"
    r"(?:;(?P<modifiers>\d{0,3})(?::(?P<event>\d?))?)?"
    r"(?:;(?P<text>[\d:]*))?(?P<end>[u~ABCDEFHPQRS])"
)
"""A key in xterm's or Kitty's form; sub-fields are alternate keys and the kind of event."""

RELEASED = "3"

CONTROL_KEYS = (9, 13, 27, 127)
"""Tab, Enter, Escape, Backspace, as Kitty's protocol numbers them."""


class TerminalParser(XTermParser):
    """Textual's parser behind a check of every sequence.

    `size` tells the terminal's columns and rows as the system knows them; None: it does not.
    """

    def __init__(
        self,
        debug: bool = False,
        *,
        size: Callable[[], tuple[int, int] | None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size, self._now = size, now
        self._held = ""  # the beginning of what is not whole yet
        self._deadline: float | None = None  # when what is held is all that will come
        self._paste: list[str] | None = None
        self._pasted = 0  # characters in it
        self._unanswered = {"2026", "2048"}  # modes that Textual asks for, once each
        super().__init__(debug)

    def feed(self, data: str) -> Iterable[Message]:
        """The events of `data`; an empty text is the end of the stream."""
        if not data:
            yield from self._rest()
            yield from super().feed("")
            return
        self._held += data
        self._deadline = None
        while self._held:
            whole, events = self._in_paste() if self._paste is not None else self._next()
            yield from events
            if not whole:
                break
        if self._paste is not None:
            self._deadline = self._now() + PASTE_SECONDS

    def tick(self) -> Iterable[Message]:
        """What is held and grew no further: an Escape, an Alt key, a paste without an end."""
        if self._deadline is not None and self._now() >= self._deadline:
            yield from self._rest()

    @property
    def waits(self) -> bool:
        """Whether something is held that `tick` may deliver."""
        return self._deadline is not None

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    # Pastes.

    def _in_paste(self) -> tuple[bool, Iterable[Message]]:
        end = self._held.find(PASTE_END)
        if end >= 0:
            self._keep(self._take(end))
            self._take(len(PASTE_END))
            return True, self._pasted_text()
        begun = next(
            (n for n in range(len(PASTE_END) - 1, 0, -1) if self._held.endswith(PASTE_END[:n])), 0
        )
        self._keep(self._take(len(self._held) - begun))
        return False, ()

    def _keep(self, text: str) -> None:
        assert self._paste is not None
        if text and self._pasted < MAX_PASTE:
            self._paste.append(text[: MAX_PASTE - self._pasted])
            self._pasted += len(self._paste[-1])

    def _pasted_text(self) -> Iterator[Message]:
        text = "".join(self._paste or ()).replace("\0", "")
        self._paste, self._pasted = None, 0
        if text:
            yield Paste(text)

    # Characters and sequences.

    def _next(self) -> tuple[bool, Iterable[Message]]:
        """One step through what is held: whether there may be more in it, and the events."""
        held = self._held
        escape = held.find("\x1b")
        if escape != 0:
            return True, super().feed(self._take(escape if escape > 0 else len(held)))
        if held.startswith("\x1b\x1b"):
            self._take(1)
            return True, [Key("escape", "\x1b")]
        if held in ("\x1b", "\x1bO") or any(form.match(held) for form in _BEGUN):
            self._deadline = self._now() + constants.ESCAPE_DELAY
            return False, ()
        for form in _FORMS:
            if found := form.match(held):
                return True, self._sequence(self._take(found.end()))
        if held[1] != "[":
            return True, self._alt(self._take(2))
        broken = _PARAMETERS_ONLY.match(held)
        assert broken is not None
        if broken.end() < len(held):
            self._take(broken.end())
            return True, ()
        self._held = held[:MAX_SEQUENCE]  # endless: its final character is still to be swallowed
        self._deadline = self._now() + constants.ESCAPE_DELAY
        return False, ()

    def _rest(self) -> Iterator[Message]:
        """All that is held, as it stands."""
        self._deadline = None
        if self._paste is not None:
            self._keep(self._take(len(self._held)))
            yield from self._pasted_text()
        elif self._held == "\x1b":
            self._take(1)
            yield Key("escape", "\x1b")
        elif self._held in ANSI_SEQUENCES_KEYS:  # rxvt's keys look unfinished
            yield from self._textual(self._take(len(self._held)))
        elif len(self._held) == 2:
            yield from self._alt(self._take(2))
        else:
            self._take(len(self._held))

    def _alt(self, sequence: str) -> Iterable[Message]:
        if sequence in ANSI_SEQUENCES_KEYS:
            return self._textual(sequence)
        return self._sequence_to_key_events(sequence[1], alt=True)

    def _sequence(self, sequence: str) -> Iterable[Message]:
        """The events of a whole sequence; none for what nobody asked for or no terminal sends."""
        if sequence == PASTE_START:
            self._paste = []
        elif sequence == PASTE_END:
            pass
        elif found := _SIZE.fullmatch(sequence):
            return self._resize(*map(int, found.groups()))
        elif found := _MODE.fullmatch(sequence):
            if found[1] in self._unanswered:
                self._unanswered.discard(found[1])
                return self._textual(sequence)
        elif (
            sequence in (FOCUSIN, FOCUSOUT)
            or sequence in ANSI_SEQUENCES_KEYS
            or _MOUSE.fullmatch(sequence)
            or _CURSOR.fullmatch(sequence)
        ):
            return self._textual(sequence)
        elif found := _KEY.fullmatch(sequence):
            return self._key(found)
        return ()

    def _resize(self, rows: int, columns: int, height: int, width: int) -> Iterable[Message]:
        """A report of the size in cells and pixels; of cells the system's word goes before it."""
        columns, rows = self._size() or (columns, rows)
        if (
            0 < columns <= MAX_CELLS
            and 0 < rows <= MAX_CELLS
            and columns <= width <= columns * MAX_CELL_PIXELS
            and rows <= height <= rows * MAX_CELL_PIXELS
        ):
            return self._textual(f"\x1b[48;{rows};{columns};{height};{width}t")
        return ()

    def _key(self, key: re.Match[str]) -> Iterable[Message]:
        text = key["text"] or ""
        known = _is_key(key["code"]) if key["end"] == "u" else len(key["code"]) <= 3
        if key["event"] == RELEASED or not known:
            return ()
        if not all(_is_text(code) for code in text.split(":") if code):
            return ()
        fields = [key["code"], key["modifiers"] or "", text]
        while len(fields) > 1 and not fields[-1]:
            fields.pop()
        plain = f"\x1b[{';'.join(fields)}{key['end']}"
        return () if plain in (PASTE_START, PASTE_END) else self._textual(plain)

    def _textual(self, sequence: str) -> Iterator[Message]:
        """What Textual makes of a sequence that is whole and of a known form."""
        yield from super().feed(sequence)
        if self._awaiting.timeout is not None:  # it waits for more, which will not come
            self._awaiting = self._gen.throw(ParseTimeout())
            self._tokens.clear()


def _is_text(code: str) -> bool:
    """Whether a number is that of a character that can be written: no control, no half of a pair."""
    number = int(code)
    return 32 <= number <= 0x10FFFF and not 0x7F <= number < 0xA0 and not 0xD800 <= number <= 0xDFFF


def _is_key(code: str) -> bool:
    """Whether a number stands for a key: a character, or one of the four controls that have a key."""
    return code != "" and (int(code) in CONTROL_KEYS or _is_text(code))
