"""Reads one file's text in a process of its own: `python -m ktchat.attachments.reader_child`.

The file is the standard input, open already; the answer is JSON on the standard output. Time and memory are bounded,
network and files out of reach: what a PDF makes pypdf do stays in here.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import json
import os
import resource
import sys

MAX_TEXT_BYTES = 16 << 20
MAX_PDF_BYTES = 128 << 20
MAX_PAGES = 5000
SAMPLE = 256 << 10
"""Bytes from which an encoding is guessed."""

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
COMMON = (
    *("gb18030", "cp1252", "cp1250", "cp1251", "koi8_r", "big5", "shift_jis", "euc_jp", "cp949"),
    *("cp1253", "cp1254", "cp1255", "cp1256", "cp874"),
)
"""Encodings that files really have; of equally likely ones the first is meant."""
FORMS = (
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"RIFF", "a picture, a sound or a film"),
    (b"PK\x03\x04", "an archive, or an Office document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x1f\x8b", "compressed"),
    (b"\x28\xb5\x2f\xfd", "compressed"),
    (b"BZh", "compressed"),
    (b"\xfd7zXZ", "compressed"),
    (b"7z\xbc\xaf", "an archive"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "a database"),
    (b"GGUF", "a model"),
)


class RefusedError(Exception):
    """The file cannot be attached; the words say why, and what to do."""


def read(data_limit: int) -> dict[str, object]:
    """The text of the standard input, its kind, size and hash."""
    file = sys.stdin.buffer
    head = file.read(8)
    pdf = head.startswith(b"%PDF")
    most = MAX_PDF_BYTES if pdf else MAX_TEXT_BYTES
    for magic, words in FORMS:
        if head.startswith(magic[: len(head)]) and len(head) >= min(4, len(magic)):
            raise RefusedError(f"It is no text but {words}")
    data = head + file.read(most + 1 - len(head))
    if len(data) > most:
        raise RefusedError(f"It has more than {most >> 20} MiB", "Attach a part of it")
    text = pdf_text(data, data_limit) if pdf else plain_text(data)
    if len(text) > data_limit:
        raise RefusedError(
            f"Its text has {len(text):,} characters, and {data_limit:,} are the most"
        )
    digest = hashlib.sha256(data).hexdigest()
    return {"kind": "pdf" if pdf else "text", "text": text, "sha256": digest, "size": len(data)}


def plain_text(data: bytes) -> str:
    """Text in whatever encoding it has."""
    for bom, encoding in BOMS:
        if data.startswith(bom):
            return data.decode(encoding, "replace")
    if b"\0" not in data[:SAMPLE]:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("utf-8")
    return data.decode(_encoding(data), "replace")


def _encoding(data: bytes) -> str:
    """The likeliest encoding of text that is no UTF-8."""
    from charset_normalizer import from_bytes

    sample = data[:SAMPLE]
    wide = _without_marks(sample)
    if wide:
        return wide
    if b"\0" in sample:
        raise RefusedError("It is no text: there are zero bytes in it")
    found = list(from_bytes(sample, cp_isolation=list(COMMON)))
    if not found:
        raise RefusedError("It is no text, or in no known encoding")
    best = (found[0].chaos, found[0].coherence)
    likely = {match.encoding for match in found if (match.chaos, match.coherence) == best}
    return next((encoding for encoding in COMMON if encoding in likely), found[0].encoding)


def _without_marks(sample: bytes) -> str:
    """UTF-16 that does not say so: every other byte of western text is zero."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if half and len(sample) % 2 == 0 and min(even, odd) == 0 and max(even, odd) > 0.4 * half:
        return "utf-16-le" if odd else "utf-16-be"
    return ""


def pdf_text(data: bytes, limit: int) -> str:
    """The text of a PDF's pages, each behind its number."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise RefusedError("The PDF is protected by a password", "Save it without one")
    pages: list[str] = []
    length = 0
    for number, page in enumerate(reader.pages, 1):
        if number > MAX_PAGES:
            raise RefusedError(f"The PDF has more than {MAX_PAGES:,} pages", "Attach a part of it")
        text = page.extract_text().strip()
        length += len(text)
        if length > limit:
            raise RefusedError(f"Its text has more than {limit:,} characters")
        if text:
            pages.append(f"[page {number}]\n{text}")
    if not pages:
        raise RefusedError(
            "There is no text in the PDF", "Its pages may be pictures: run OCR first"
        )
    return "\n\n".join(pages) + "\n"


def main(arguments: list[str]) -> None:
    """Limits, then the file. `arguments`: seconds of processor time, bytes of memory, characters of text."""
    seconds, memory, characters = map(int, arguments)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(3000)
    answer: dict[str, object]
    try:
        _import_all()
        _confine()
        answer = read(characters)
    except RefusedError as error:
        answer = {"refused": [str(argument) for argument in error.args]}
    except MemoryError:
        answer = {"refused": ["It needs too much memory to read"]}
    except RecursionError:
        answer = {"refused": ["It is nested too deeply to read"]}
    except Exception as error:  # a stranger's file may fail in any way: the process ends with it
        answer = {"refused": [f"It is damaged ({type(error).__name__})"]}
    sys.stdout.buffer.write(json.dumps(answer).encode())
    sys.stdout.buffer.flush()
    os._exit(0)  # what was built of a hostile file need not be taken down


def _import_all() -> None:
    """What reading imports late must be there before files are out of reach."""
    import logging

    import charset_normalizer  # noqa: F401
    import pypdf

    logging.getLogger(pypdf.__name__).setLevel(logging.CRITICAL)


def _confine() -> None:
    """Neither network nor files, where the system can: late imports find the libraries still."""
    from engine.process.confinement import without_files, without_network

    without_network(local=False)
    without_files([path for path in sys.path if path] + [sys.base_prefix])


if __name__ == "__main__":
    main(sys.argv[1:])
