"""Writes engine/text/unicode-categories.txt: `python3.13 packaging/unicode_categories.py`.

llama.cpp cuts text by the categories of Unicode 15.1, which are those of Python 3.13; every other Python has others.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

VERSION = "15.1.0"
TARGET = Path(__file__).parents[1] / "engine" / "text" / "unicode-categories.txt"


def ranges() -> list[tuple[int, str]]:
    """Where each run of code points begins, and its category's first letter; `-` where there is no character."""
    found: list[tuple[int, str]] = []
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        kind = "-" if category == "Cn" else category[0]
        if not found or found[-1][1] != kind:
            found.append((code, kind))
    return found


def main() -> int:
    if unicodedata.unidata_version != VERSION:
        print(
            f"This Python has Unicode {unicodedata.unidata_version}, not {VERSION}", file=sys.stderr
        )
        return 1
    lines = (f"{code:X} {kind}\n" for code, kind in ranges())
    TARGET.write_text("".join(lines), encoding="ascii")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
