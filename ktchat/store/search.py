"""Finds words in all titles and texts.

Every word must be in a text, in any order; case does not count. Words of three characters and more go through
the index (trigrams narrow the turns down, each is then looked at), shorter ones too where few trigrams begin
with them, else through the texts themselves, newest first.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ktchat.common.text import one_line, sanitise
from ktchat.store import search_index
from ktchat.store.conversation import TITLE_LENGTH, UNTITLED, Conversation
from ktchat.store.database import Database
from ktchat.store.records import storable
from ktchat.store.tree import Part

MAX_WORDS, MAX_WORD = 8, 64
MAX_TRIGRAMS = 12
"""Of a word that are looked up; a longer word is told by looking at the text."""
FEW_TERMS = 300
"""Trigrams that may begin with a short word for the index to be the faster way."""
LIMIT = 60
"""Hits that are looked for."""
NOTHING = '"\x01\x01\x01"'
"""A query that finds nothing."""
PAGE = 100
"""Candidates that are looked at at once."""
MAX_SEEN = 4000
"""Candidates after which a search ends, whatever it has found."""
MAX_LINE = 240


@dataclass(frozen=True, slots=True)
class Hit:
    """A text that has all the words; safe to draw."""

    session: str
    title: str
    updated: float
    """Unix time at which the session was used last."""
    turn: str | None = None
    """Id of the turn; None: the words are in the title."""
    part: Part = "prompt"
    line: str = ""
    """The line with the first of the words."""
    at: tuple[int, int] = (0, 0)
    """Where in the line it is, in characters."""


class Words:
    """What is looked for."""

    def __init__(self, text: str) -> None:
        words = [word[:MAX_WORD] for word in sanitise(text).split()][:MAX_WORDS]
        self.words = tuple(dict.fromkeys(str(storable(word)) for word in words))
        self._patterns = [re.compile(re.escape(word), re.IGNORECASE) for word in self.words]

    def __bool__(self) -> bool:
        return bool(self.words)

    def within(self, text: str) -> bool:
        """Whether a text has them all."""
        return all(pattern.search(text) for pattern in self._patterns)

    def line(self, text: str) -> tuple[str, tuple[int, int]]:
        """The line of a text with the first word, safe to draw, cut around it; and where it is in it."""
        found = min(
            filter(None, (pattern.search(text) for pattern in self._patterns)),
            key=lambda match: match.start(),
        )
        start = max(text.rfind("\n", 0, found.start()) + 1, found.start() - MAX_LINE // 3)
        end = text.find("\n", found.end())
        line = one_line(text[start : end if end >= 0 else len(text)], MAX_LINE)
        if start and text[start - 1] != "\n":
            line = f"…{line}"
        match = next(filter(None, (p.search(line) for p in self._patterns)), None)
        return line, match.span() if match is not None else (0, 0)

    def trigrams(self) -> list[str]:
        """Those of the long words, for the index; empty: there are only short ones."""
        found: list[str] = []
        for word in self.words:
            every = [word[i : i + 3] for i in range(len(word) - 2)]
            step = max(1, -(-len(every) // MAX_TRIGRAMS))
            found += [*every[::step], *every[-1:]]
        return list(dict.fromkeys(found))


class Search:
    """Over one database. Methods raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def behind(self) -> int:
        """About how many turns are not in the index yet; 0: all are, or there is no index."""
        if not self.indexed:
            return 0
        return int(self._database.query("SELECT behind FROM search_state")[0]["behind"])

    def add_more(self) -> bool:
        """Put some more turns into the index, the newest first; False: all are there."""
        if not self.behind():
            return False
        self._database.write(search_index.ADD_MORE)
        return self.behind() > 0

    def renew_if_it_differs(self) -> None:
        """Empty the index where turns are missing in it; `add_more` fills it again."""
        if self.indexed and self._database.query(search_index.DIFFERS)[0]["differs"]:
            self._database.renew_index()

    def find(self, text: str, limit: int = LIMIT) -> list[Hit]:
        """Titles with all the words (at most a third), then texts, the newest first."""
        words = Words(text)
        if not words:
            return []
        hits = self._titles(words, limit // 3)
        texts = (hit for row in self._candidates(words) for hit in _hits(row, words))
        return [*hits, *islice(_once(texts), limit - len(hits))]

    def _titles(self, words: Words, limit: int) -> list[Hit]:
        exact = all("_" not in _like(word).replace("\\_", "") for word in words.words)
        condition = " AND title LIKE ? ESCAPE '\\'" * len(words.words)
        rows = self._database.query(
            f"SELECT id, title, updated FROM sessions WHERE deleted IS NULL{condition}"
            " ORDER BY updated DESC LIMIT ?",
            [*map(_like, words.words), limit if exact else -1],
        )
        hits: list[Hit] = []
        for row in rows:
            if len(hits) < limit and words.within(title := str(row["title"])):
                line, at = words.line(title)
                hits.append(Hit(row["id"], _title(title), row["updated"], line=line, at=at))
        return hits

    def _candidates(self, words: Words) -> Iterator[Any]:
        """Turns that may have the words, the newest first."""
        query = self._indexed_query(words) if self.indexed else ""
        page = self._found if query else self._scanned
        before, seen = 1 << 62, 0
        while seen < MAX_SEEN:
            numbers = page(query or max(words.words, key=len), before)
            marks = ", ".join("?" * len(numbers))
            yield from self._database.query(
                "SELECT t.id, t.session, t.prompt, t.reply, s.title, s.updated FROM turns t"
                " JOIN sessions s ON s.id = t.session"
                f" WHERE t.rowid IN ({marks}) AND s.deleted IS NULL ORDER BY t.rowid DESC",
                numbers,
            )
            seen += len(numbers)
            if len(numbers) < PAGE:
                return
            before = numbers[-1]

    def _found(self, query: str, before: int) -> list[int]:
        """The next candidates by the index."""
        rows = self._database.query(
            "SELECT rowid FROM search WHERE search MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT ?",
            (query, before, PAGE),
        )
        return [int(row["rowid"]) for row in rows]

    def _scanned(self, word: str, before: int) -> list[int]:
        """The next turns with a word, by looking at all of them."""
        like = "(prompt LIKE ? ESCAPE '\\' OR reply LIKE ? ESCAPE '\\')"
        rows = self._database.query(
            f"SELECT rowid FROM turns WHERE {like} AND rowid < ? ORDER BY rowid DESC LIMIT ?",
            [_like(word), _like(word), before, PAGE],
        )
        return [int(row["rowid"]) for row in rows]

    def _indexed_query(self, words: Words) -> str:
        """What the index is asked; empty: looking at the texts is the better way."""
        if wanted := words.trigrams():
            return " AND ".join(f'"{_quoted(trigram)}"' for trigram in wanted)
        word = max(words.words, key=lambda word: (len(word), not word.isascii()))
        if len(word) == 1 and word.isascii():  # every text has it, or none
            return "" if self._beginning(word, 1) else NOTHING
        terms = self._beginning(word, FEW_TERMS + 1)
        if len(terms) > FEW_TERMS:
            return ""
        return " OR ".join(f'"{_quoted(term)}"' for term in terms) or NOTHING

    def _beginning(self, word: str, limit: int) -> list[str]:
        """The trigrams that begin with a short word, so many at most."""
        low = word.lower()
        rows = self._database.query(
            "SELECT term FROM search_terms WHERE term >= ? AND term < ? LIMIT ?",
            (low, low[:-1] + chr(min(ord(low[-1]) + 1, 0x10FFFF)), limit),
        )
        return [str(row["term"]) for row in rows]

    @property
    def indexed(self) -> bool:
        """Whether there is an index: not every SQLite can make one."""
        return int(self._database.query(search_index.EXISTS)[0]["tables"]) == 2


def find_in(conversation: Conversation, text: str, limit: int = 200) -> list[Hit]:
    """Texts of an open conversation that have all the words, in the order in which they are shown; those of
    versions that are not shown come last."""
    words = Words(text)
    if not words:
        return []
    title, updated = conversation.shown_title, conversation.updated
    session = {"session": conversation.id, "title": title, "updated": updated}
    texts = (
        hit
        for turn in (*conversation.turns, *conversation.others)
        for hit in _hits(
            session | {"id": turn.id, "prompt": turn.raw_prompt, "reply": turn.raw_reply}, words
        )
    )
    return list(islice(_once(texts), limit))


def _once(hits: Iterable[Hit]) -> Iterator[Hit]:
    """Each line of a session once: versions of a turn often have the same."""
    seen: set[tuple[str, str, str]] = set()
    for hit in hits:
        key = hit.session, hit.part, hit.line
        if key not in seen:
            seen.add(key)
            yield hit


def _hits(row: Any, words: Words) -> Iterator[Hit]:
    """The halves of a turn that have the words; both together where neither has them all."""
    parts: tuple[Part, ...] = ("prompt", "reply")
    whole = [part for part in parts if words.within(str(row[part]))]
    if not whole and words.within(f"{row['prompt']}\n{row['reply']}"):
        whole = [next(p for p in parts if any(_has(str(row[p]), w) for w in words.words))]
    for part in whole:
        with contextlib.suppress(ValueError):
            line, at = words.line(str(row[part]))
            yield Hit(
                row["session"], _title(row["title"]), row["updated"], row["id"], part, line, at
            )


def _has(text: str, word: str) -> bool:
    return re.search(re.escape(word), text, re.IGNORECASE) is not None


def _title(title: object) -> str:
    return one_line(str(title), TITLE_LENGTH) or UNTITLED


def _like(word: str) -> str:
    """A pattern that every text with the word has; LIKE knows the case of ASCII letters only."""
    return f"%{''.join(map(_liked, word))}%"


def _liked(char: str) -> str:
    if not char.isascii() and char.lower() != char.upper():
        return "_"
    return f"\\{char}" if char in "%_\\" else char


def _quoted(trigram: str) -> str:
    return trigram.replace('"', '""')
