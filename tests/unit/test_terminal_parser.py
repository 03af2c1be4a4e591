"""What a terminal sends becomes keys, pastes and reports; nothing that comes in ends, freezes or steers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from textual import messages
from textual._xterm_parser import XTermParser
from textual.events import AppFocus, Key, MouseDown, MouseMove, Paste, Resize
from textual.message import Message

from ktchat.terminal.parser import MAX_CELLS, MAX_PASTE, PASTE_END, PASTE_START, TerminalParser

SIZE = (80, 24)


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def events(*pieces: str, size: tuple[int, int] | None = SIZE) -> list[Message]:
    """What the program sees of pieces, each of which is followed by a long silence."""
    clock = Clock()
    parser = TerminalParser(size=lambda: size, now=clock)
    out: list[Message] = []
    for piece in pieces:
        out += parser.feed(piece)
        clock.time += 10
        out += parser.tick()
    assert not parser.waits
    return out


def told(event: Message) -> object:
    """An event in short."""
    match event:
        case Key():
            return event.key
        case Paste():
            return ("paste", event.text)
        case Resize():
            return ("size", *event.size)
    return type(event).__name__


def seen(*pieces: str, size: tuple[int, int] | None = SIZE) -> list[object]:
    return [told(event) for event in events(*pieces, size=size)]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("aß\r", ["a", "ß", "enter"]),
        ("\x03\x0f", ["ctrl+c", "ctrl+o"]),
        ("\x1b", ["escape"]),
        ("\x1b\x1b", ["escape", "escape"]),
        ("\x1b[A\x1bOB\x1b[1;5C", ["up", "down", "ctrl+right"]),
        ("\x1b\x1b[A", ["escape", "up"]),
        ("\x1bx\x1bX", ["alt+x", "alt+shift+x"]),
        ("\x1b]", ["right_square_bracket"]),
        ("\x1bO", ["alt+shift+o"]),
        ("\x1bOQ\x1b[15~\x1b[[A", ["f2", "f5", "f1"]),
        ("\x1b[3~\x1b[Z", ["delete", "shift+tab"]),
        ("\x1b[3$", ["shift+delete"]),
        ("\x1b[13;2u\x1b[106;5u", ["shift+enter", "ctrl+j"]),
        ("\x1b[97;1;97u\x1b[97;2;65u", ["a", "A"]),
        ("\x1b[97:65;2;65u", ["A"]),
        ("\x1b[97;5:1u\x1b[97;5:2u\x1b[97;5:3u", ["ctrl+a", "ctrl+a"]),
        ("\x1b[1;1:1A\x1b[1;1:3A", ["up"]),
        ("\x1b[<0;3;5M\x1b[<35;3;5M", ["MouseDown", "MouseMove"]),
        ("\x1b[I\x1b[O", ["AppFocus", "AppBlur"]),
        ("\x1b[200~one\ntwo\x1b[201~x", [("paste", "one\ntwo"), "x"]),
    ],
)
def test_keys_of_every_kind(sent: str, expected: list[object]) -> None:
    assert seen(sent) == expected


HUGE_SIZE = "\x1b[48;65535;65535;0;0t"

MEANINGLESS = (
    "\x1b[1114112u",  # no character
    "\x1b[1114112A",
    "\x1b[55296u",  # half of one
    "\x1b[97;1;1114112u",
    "\x1b[<32;NaN;NaNM",
    "\x1b[<0;-1;5M",
    "\x1b[<0;99999999999;5M",
    "\x1b[M !!",
    "\x1b[u",
    "\x1b[1u",
    "\x1b[97;1;27u",
    "\x1b[200:1~",
    HUGE_SIZE,
    "\x1b[48;1;2t",
    "\x1b[9999999999999999999999;1R",
    "\x1b]11;rgb:0000/0000/0000\x1b\\",
    "\x1b]0;owned\x07",
    "\x1bP1$r0m\x1b\\",
    "\x1b[>1;4000;20c",
    "\x1b[?62;c",
    "\x1b[" + "1" * 200,
    "\x1b[1;2\x07"[:-1],
    "\x1b[201~",
)


@pytest.mark.parametrize("sent", MEANINGLESS)
def test_what_no_key_sends_means_nothing(sent: str) -> None:
    assert seen(sent, "x") == ["x"]
    assert seen("a" + sent, "b") == ["a", "b"]


ESCAPES_IN_PASTES = (
    "AAA\x1b\x11BBB",
    "AAA\x1b]0;owned\x07BBB",
    "AAA\x1b]0;x\rhello\r BBB",
    f"look: {HUGE_SIZE} end",
    "\x1b[200~ again",
    "an end that is none \x1b[201",
    "\x1b",
)


@pytest.mark.parametrize("text", ESCAPES_IN_PASTES)
def test_a_paste_ends_at_its_end_only(text: str) -> None:
    assert seen(f"\x1b[200~{text}\x1b[201~", "x") == [("paste", text), "x"]


def test_a_paste_in_pieces_is_one_paste_however_it_is_cut() -> None:
    sent = "a\x1b[200~one\x1b[A\rtwo\x1b[201~\x1b[Ab"
    whole = ["a", ("paste", "one\x1b[A\rtwo"), "up", "b"]
    for at in range(1, len(sent)):
        parser = TerminalParser()
        assert [told(e) for part in (sent[:at], sent[at:]) for e in parser.feed(part)] == whole
    parser = TerminalParser()
    assert [told(e) for char in sent for e in parser.feed(char)] == whole


@pytest.mark.parametrize("sent", MEANINGLESS)
def test_what_means_nothing_means_nothing_in_pieces(sent: str) -> None:
    parser = TerminalParser(size=lambda: SIZE)
    assert [told(e) for char in sent for e in parser.feed(char)] == []
    assert [told(e) for e in parser.feed("\x1b[Ax")][-1:] == ["x"]


def test_a_paste_without_an_end_is_delivered_and_the_keys_live() -> None:
    assert seen("\x1b[200~lost", "x") == [("paste", "lost"), "x"]


def test_a_paste_is_bounded_and_its_end_is_found() -> None:
    paste, key = events("\x1b[200~" + "a" * (MAX_PASTE + 5) + "\x1b[201~", "x")
    assert isinstance(paste, Paste) and len(paste.text) == MAX_PASTE
    assert told(key) == "x"


def test_a_reported_size_is_the_systems_or_within_bounds() -> None:
    report = "\x1b[48;30;100;600;1000t"
    assert seen(report) == [("size", *SIZE)]
    assert seen(report, size=None) == [("size", 100, 30)]
    assert seen(f"\x1b[48;{MAX_CELLS + 1};100;99999;1000t", size=None) == []
    assert seen("\x1b[48;30;100;1;1t", size=None) == []


def test_a_mode_is_answered_once() -> None:
    answer = "\x1b[?2048;2$y"
    assert [type(e) for e in events(answer, answer)] == [messages.InBandWindowResize]
    assert events("\x1b[?1234;2$y") == []


def test_the_mouse_keeps_its_places() -> None:
    down, move = events("\x1b[<0;3;5M", "\x1b[<35;4;5M")
    assert isinstance(down, MouseDown) and (down.x, down.y) == (2, 4)
    assert isinstance(move, MouseMove) and move.delta_x == 1
    assert isinstance(events("\x1b[I")[0], AppFocus)


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [("\x1b[97;1:3u", ValueError), ("\x1b[1114112u", ValueError)],
)
def test_textual_still_ends_on_these(sent: str, wrong: type[Exception]) -> None:
    """When this fails, a part of `ktchat.terminal` is no longer needed."""
    with pytest.raises(wrong):
        list(XTermParser().feed(sent))


def test_textual_still_takes_an_escape_for_the_end_of_a_paste_and_types_reports() -> None:
    """When this fails, a part of `ktchat.terminal` is no longer needed."""
    assert any(isinstance(e, Resize) for e in XTermParser().feed(PASTE_START + HUGE_SIZE))
    typed = XTermParser().feed("\x1b[200~a\x1b]0;x\rhello and quite a lot more than this\r")
    assert any(isinstance(e, Key) and e.key == "enter" for e in typed)


PARTS = (
    *MEANINGLESS,
    *ESCAPES_IN_PASTES,
    *(
        "\x1b[A",
        "\x1bO",
        "\x1b[",
        "\x1b[<",
        "\x1b",
        "\x1b[97;5",
        ":3u",
        "u",
        "M",
        "t",
        "R",
        "~",
        "$y",
    ),
    *("text", "ß", "\U0001f600", "\r", "\0", "\x07", "\x9b", "\ufffd", "65535", ";", ":", "NaN"),
)


def streams(count: int) -> Iterator[str]:
    """Random and mutated sequences, whole pastes among them."""
    chance = random.Random(11)
    for _ in range(count):
        parts = [chance.choice(PARTS) for _ in range(chance.randint(1, 5))]
        text = "".join(parts)
        for _ in range(chance.randint(0, 3)):
            at = chance.randrange(len(text) + 1)
            new = chance.choice(("", chr(chance.randrange(256)), chance.choice("0123456789;:<?$")))
            text = text[:at] + new + text[at + chance.randint(0, 2) :]
        if chance.random() < 0.3:
            text = PASTE_START + text.replace(PASTE_END, "") + PASTE_END
        yield text


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.exhaustive)])
def test_nothing_random_breaks_through(count: int) -> None:
    clock, chance = Clock(), random.Random(5)
    parser = TerminalParser(size=lambda: SIZE, now=clock)
    for text in streams(count):
        at = chance.randrange(len(text) + 1)
        found = [*parser.feed(text[:at] or "a"), *parser.feed(text[at:] or "a")]
        if text.startswith(PASTE_START) and text.endswith(PASTE_END) and 0 < at < len(text):
            assert [type(event) for event in found] in ([Paste], []), (text, found)
        for event in found:
            if isinstance(event, Resize):
                assert event.size == SIZE
            if isinstance(event, Key) and event.character:
                event.character.encode()
        clock.time += 10
        list(parser.tick())
        assert [told(event) for event in parser.feed("x")] == ["x"], text
