"""Files that go with a message: what they become, what is refused, and what cannot be done with a hostile one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ktchat.attachments import completing, finding, pasted_paths
from ktchat.attachments.attachment import Attachment, Draft, pasted, with_blocks
from ktchat.attachments.reading import is_model, read
from ktchat.common.errors import AttachmentError
from tests.support.pdf import drawn, pdf

RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю."
CHINESE = (
    "混合专家模型的权重远远多于一个词元所需要的数量。每一层的路由器从一百二十八个专家中选出八个。"
)
JAPANESE = "これは日本語のテキストです。文字コードを正しく判定できますか。"
GERMAN = "Größe und Äpfel, schöne Grüße aus Köln. Straße über Brücke."


def refused(path: Path, **options: int) -> str:
    with pytest.raises(AttachmentError) as error:
        read(path, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", CHINESE),
        ("utf-8-sig", GERMAN),
        ("utf-16", JAPANESE),
        ("utf-16-le", "plain words in UTF-16 without a mark"),
        ("utf-32", RUSSIAN),
        ("latin-1", GERMAN),
        ("latin-1", "café crème"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy"),
        ("gb18030", "混合专家模型"),
        ("big5", "混合專家模型的權重遠遠多於一個詞元所需要的數量"),
        ("cp1251", RUSSIAN),
        ("koi8-r", RUSSIAN),
        ("gb18030", CHINESE),
        ("shift_jis", JAPANESE),
    ],
)
def test_text_of_any_encoding_is_read(tmp_path: Path, encoding: str, text: str) -> None:
    data = f"{text}\r\n{text}\n".encode(encoding)
    (tmp_path / "notes.md").write_bytes(data)
    found = read(tmp_path / "notes.md")
    assert found.text == f"{text}\n{text}\n"
    assert (found.name, found.kind, found.lines) == ("notes.md", "text", 2)
    assert (found.sha256, found.size) == (hashlib.sha256(data).hexdigest(), len(data))


def test_what_controls_a_terminal_does_not_come_through(tmp_path: Path) -> None:
    name = "ev\x1b]0;owned\x07il\u202e.txt"
    (tmp_path / name).write_text("be\x1b[2Jfore \x1b]52;c;SGFja2Vk\x07 after\x9b6n\u202e.\tend\n")
    found = read(tmp_path / name)
    assert found.text == "before  after.\tend\n"
    assert found.name == "evil.txt"


def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    (tmp_path / "paper.pdf").write_bytes(pdf(drawn("Hello experts"), pages=2))
    found = read(tmp_path / "paper.pdf")
    assert found.kind == "pdf"
    assert found.text == "[page 1]\nHello experts\n\n[page 2]\nHello experts\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(range(256)) * 20, "zero bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
        (b"PK\x03\x04" + bytes(99), "an archive, or an Office document"),
        (b"GGUF" + bytes(99), "a model"),
        (b"", "There is nothing in it"),
        (b" \n\n", "There is nothing in it"),
        (pdf(b"BT ET"), "no text in the PDF"),
        (pdf(drawn("x"))[:150], "damaged"),
        (b"%PDF-1.4\n" + b"<<" * 50_000, "was not attached"),
    ],
)
def test_what_is_no_text_is_refused_in_words(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "thing").write_bytes(data)
    said = refused(tmp_path / "thing")
    assert said.startswith("thing was not attached.") and words in said


def test_what_is_no_file_is_refused_in_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refused(tmp_path / "pipe")
    assert "There is no such file" in refused(tmp_path / "missing")
    assert "neither a file nor a folder" in refused(Path("/dev/zero"))
    (tmp_path / "empty").mkdir()
    assert "nothing in this folder" in refused(tmp_path / "empty")
    assert "not a path" in refused(Path("a\0b"))


def test_a_long_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_bytes(b"word " * 900_000)
    assert "4,500,000 characters, and 4,000,000 are the most" in refused(tmp_path / "long.txt")
    (tmp_path / "longer.txt").write_bytes(b"word " * (4 << 20))
    assert "more than 16 MiB" in refused(tmp_path / "longer.txt")


def test_a_bomb_takes_bounded_time_and_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.pdf").write_bytes(pdf(b"BT (x) Tj ET " * 30_000_000, filters=2))
    assert "was not attached" in refused(tmp_path / "bomb.pdf")
    (tmp_path / "endless.pdf").write_bytes(
        pdf(b"BT /F1 12 Tf " + b"20 100 Td (Hello experts) Tj " * 1_000_000 + b"ET")
    )
    assert "too long or too much memory" in refused(tmp_path / "endless.pdf", seconds=3)
    (tmp_path / "plain.txt").write_bytes(b"word " * 100_000)
    assert "was not attached" in refused(tmp_path / "plain.txt", memory=1 << 24)


def test_the_reader_opens_no_file_and_no_network() -> None:
    script = (
        "import socket; from ktchat.attachments import reader_child as r\n"
        "r._import_all(); r._confine()\n"
        "def tried(what):\n"
        "    try: what()\n"
        "    except OSError as error: return type(error).__name__\n"
        "    return 'done'\n"
        "print(tried(lambda: open('/etc/hostname')), tried(lambda: socket.socket()),"
        " tried(lambda: open('/dev/null', 'w')))"
    )
    from engine.process.confinement import probe

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    file, network, written = done.stdout.split()
    can = probe()
    assert (file, written) == ("PermissionError",) * 2 or not can["files"]
    assert network == "PermissionError" or not can["network"]


def test_a_folder_is_a_list_without_what_is_ignored(tmp_path: Path) -> None:
    for name in ("a.txt", "src/b.py", "node_modules/c.js", "out/d.bin", ".git/e", "src/f.log"):
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    (tmp_path / "project" / ".gitignore").write_text("/out/\n*.log\n")
    found = read(tmp_path / "project")
    assert (found.name, found.kind) == ("project/", "folder")
    assert found.text == "a.txt  5 B\nsrc/\nsrc/b.py  5 B\n"


def test_a_long_folder_ends_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ktchat.attachments.reading.MAX_LISTED", 3)
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text("x")
    assert read(tmp_path).text.endswith("2.txt  1 B\n… and more: the list ends after 3\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert len(list(finding.below(tmp_path))) == 10, "a link is not followed"
    assert list(finding.below(tmp_path, most=2)) == ["0.txt", "1.txt"]
    assert list(finding.below(tmp_path, seconds=0.0)) == []


# The block that the model reads.


def test_the_block_has_fences_that_the_text_cannot_close() -> None:
    item = Attachment("a.md", "before\n````\ninside\n````\n")
    assert item.block == "File: a.md\n`````\nbefore\n````\ninside\n````\n`````"
    assert with_blocks("Why?", [item, item]).endswith("`````\n\nWhy?")
    assert with_blocks("", [item]) == item.block
    assert with_blocks("", []) == ""
    assert Draft("", (item,)) and Draft("x") and not Draft(" ")


def test_a_paste_is_kept_without_what_controls() -> None:
    found = pasted("one\x1b[31m\r\ntwo")
    assert (found.text, found.lines, found.kind) == ("one\ntwo", 2, "paste")
    assert found.sha256 == found.digest == hashlib.sha256(b"one\ntwo").hexdigest()


# Paths as terminals paste them.


def test_pasted_paths_are_told_from_words(tmp_path: Path) -> None:
    spaced = tmp_path / "a b" / "x.txt"
    spaced.parent.mkdir()
    spaced.write_text("x")
    plain = tmp_path / "y'z.txt"
    plain.write_text("y")
    quoted = str(plain).replace("'", "'\\''")
    for text in (
        f"'{spaced}'",
        f'"{spaced}"',
        str(spaced).replace(" ", "\\ "),
        f"file://{str(spaced).replace(' ', '%20')}",
        f"{spaced}\n",
    ):
        assert pasted_paths.existing(text) == [spaced], text
    both = f"'{spaced}' '{quoted}'"
    assert pasted_paths.existing(both) == [spaced, plain]
    urls = f"file://{str(spaced).replace(' ', '%20')}\nfile://localhost{plain}\n"
    assert pasted_paths.existing(urls) == [spaced, plain]
    for text in (
        "hello there",
        "x.txt",
        f"look at {plain}",
        f"{tmp_path}/missing",
        "/",
        "'unclosed",
        f"file://elsewhere{plain}",
        "file://%00",
        f"{spaced}\nand more words",
    ):
        assert pasted_paths.existing(text) == [], text


def test_a_model_is_told_from_a_text(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"GGUF\x03\0\0\0")
    (tmp_path / "t.gguf").write_text("no model")
    assert is_model(tmp_path / "m.bin") and not is_model(tmp_path / "t.gguf")
    assert not is_model(tmp_path) and not is_model(tmp_path / "missing")


# Completion.


def test_the_likeliest_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("notes.md", "src/chat.py", "src/deep/chatter.py", "old/a-chat.txt", "cxhxaxt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    index = completing.Index()
    assert index.complete("zzz", []) == []
    assert index.complete("c", [])[0].typed == "cxhxaxt"
    assert [f.typed for f in index.complete("chat", [])] == [
        "src/chat.py",
        "src/deep/chatter.py",
        "old/a-chat.txt",
        "cxhxaxt",
    ]
    recent = (str(tmp_path / "src" / "chat.py"), str(tmp_path / "gone.txt"))
    first = index.complete("", recent)[0]
    assert (first.path, first.recent) == (recent[0], True)
    assert len([f for f in index.complete("", recent) if f.path == recent[0]]) == 1
    inside = index.complete(f"{tmp_path}/sr", [])
    assert [(f.typed, f.is_folder) for f in inside] == [(f"{tmp_path}/src/", True)]
    assert index.complete("/no/such/folder/", []) == []


def test_the_working_folder_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert completing.Index().complete("x", []) == []


def test_the_readers_limits_are_those_of_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdef")
    command = [sys.executable, "-P", "-m", "ktchat.attachments.reader_child"]
    with (tmp_path / "a.txt").open("rb") as file:
        done = subprocess.run(
            [*command, "30", str(1 << 30), "5"], stdin=file, capture_output=True, text=True
        )
    assert "Its text has 6 characters, and 5 are the most" in done.stdout
