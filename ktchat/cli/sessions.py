"""`ktchat sessions`: the saved sessions on the command line: listed, searched, shown, exported, imported, removed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

from engine.common.cells import ljust, rjust, shorten
from engine.common.units import byte_size
from engine.errors import KtchatError
from ktchat.cli import output
from ktchat.common import paths, words
from ktchat.common.errors import SessionFileError, StoreError, reason_of
from ktchat.common.files import write_text
from ktchat.common.settings import SettingsFile
from ktchat.common.text import one_line
from ktchat.library.exporting import FORMATS, exported
from ktchat.store.conversation import Conversation, Turn, TurnState
from ktchat.store.export import to_json, to_markdown
from ktchat.store.imports import NAMES, import_file
from ktchat.store.search import LIMIT
from ktchat.store.store import SessionSummary, Store

ID_LENGTH = 8
"""Digits of an id that are shown; any unambiguous start of it names a session."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat sessions`."""
    parser = subparsers.add_parser(
        "sessions",
        help="list, search, show, export, import and remove saved sessions",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every session, the last used first")
    listing.add_argument("--json", action="store_true", help="print JSON")
    show = actions.add_parser("show", help="print a session")
    show.add_argument("--thinking", action="store_true", help="with the model's thinking")
    show.add_argument("--json", action="store_true", help="print JSON")
    export = actions.add_parser("export", help="write a session to a file")
    export.add_argument("--format", choices=FORMATS, help="default: by the name")
    export.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    search = actions.add_parser("search", help="find words in all titles and texts")
    search.add_argument("words", metavar="WORDS", nargs="+", help="all of them must be there")
    search.add_argument("--limit", type=int, default=LIMIT, metavar="N", help="hits at most")
    search.add_argument("--json", action="store_true", help="print JSON")
    imports = actions.add_parser(
        "import", help=f"take in sessions from files of {NAMES}; nothing is overwritten"
    )
    imports.add_argument("file", metavar="FILE", nargs="+", help="JSON")
    remove = actions.add_parser("rm", help="remove sessions for good")
    cache = actions.add_parser("cache", help="what they take on the disk to answer at once")
    cache.add_argument("--clear", action="store_true", help="empty it; sessions stay")
    cache.add_argument("--json", action="store_true", help="print JSON")
    for action in (show, export):
        action.add_argument("session", metavar="ID", help="an id, or its first digits")
    remove.add_argument("session", metavar="ID", nargs="+", help="ids, or their first digits")


def main(args: argparse.Namespace) -> int:
    """Run one action; returns the exit code."""
    store = Store(paths.database())
    try:
        return _ACTIONS[args.action](store, args)
    finally:
        for notice in store.notices:
            output.complain(notice)
        store.close()


def _list(store: Store, args: argparse.Namespace) -> int:
    sessions = store.sessions()
    if args.json:
        output.line(json.dumps([dataclasses.asdict(session) for session in sessions], indent=2))
        return 0
    if not sessions:
        output.line("No sessions yet.")
    for session in sessions:
        output.line(_line(session))
    if store.kv.used():
        output.line(f"\n{_on_disk(store)}. Empty it: ktchat sessions cache --clear")
    return 0


def _on_disk(store: Store) -> str:
    settings = SettingsFile(paths.settings_file()).settings
    budget = store.kv.budget(settings.cache_budget) if settings.disk_cache else None
    return words.on_disk(store.kv.used(), budget)


def _cache(store: Store, args: argparse.Namespace) -> int:
    freed = 0
    if args.clear:
        try:
            freed = store.kv.clear()
        except OSError as error:
            why, todo = reason_of(error)
            raise StoreError("The cache cannot be emptied", why, todo) from error
    if args.json:
        state = {"path": str(store.kv.path), "bytes": store.kv.used(), "freed": freed}
        output.line(json.dumps(state))
    elif args.clear:
        output.line(f"Freed {byte_size(freed)}. Sessions are read again when they are opened.")
    else:
        output.line(f"{_on_disk(store)}.")
    return 0


def _line(session: SessionSummary) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(session.updated))
    turns = words.counted(session.turns, "turn")
    model = shorten(one_line(session.model_name), 24)
    return f"{session.id[:ID_LENGTH]}  {when}  {rjust(turns, 9)}  {ljust(model, 24)}  {session.shown_title}"


def _load(store: Store, name: str) -> tuple[Conversation, list[Turn]]:
    """A session, and the turns that were replaced in it; nothing streams without its program."""
    session = store.find(name)
    conversation, replaced = store.load_all(session)
    if store.locks.is_free(session):
        for turn in (*conversation.turns, *replaced):
            if turn.state == TurnState.STREAMING:
                turn.state = TurnState.INTERRUPTED
    return conversation, replaced


def _show(store: Store, args: argparse.Namespace) -> int:
    conversation, replaced = _load(store, args.session)
    if args.json:
        output.write(to_json(conversation, replaced))
    else:
        output.write(to_markdown(conversation, thinking=args.thinking))
    return 0


def _export(store: Store, args: argparse.Namespace) -> int:
    conversation, replaced = _load(store, args.session)
    suffix = Path(args.output or "").suffix
    form = args.format or {".json": "json", ".html": "html", ".htm": "html"}.get(suffix, "markdown")
    conversation.others = replaced
    text = exported(conversation, form)
    if args.output is None:
        output.write(text)
    else:
        write_text(Path(args.output), text)
    return 0


def _search(store: Store, args: argparse.Namespace) -> int:
    store.settle_interrupted()
    store.search.renew_if_it_differs()
    while store.search.add_more():  # of an old store, once
        pass
    hits = store.search.find(" ".join(args.words), max(1, args.limit))
    if args.json:
        output.line(json.dumps([dataclasses.asdict(hit) for hit in hits], indent=2))
        return 0
    if not hits:
        output.line("Nothing has these words.")
    for hit in hits:
        when = time.strftime("%Y-%m-%d", time.localtime(hit.updated))
        output.line(f"{hit.session[:ID_LENGTH]}  {when}  {hit.title}")
        if hit.turn is not None:
            who = "You" if hit.part == "prompt" else "Reply"
            output.line(f"{'':{ID_LENGTH}}  {who}: {hit.line}")
    return 0


def _import(store: Store, args: argparse.Namespace) -> int:
    code = 0
    for name in args.file:
        try:
            done = import_file(store, Path(name))
        except SessionFileError as error:
            output.complain(str(error))
            code = 1
            continue
        output.line(f"{one_line(Path(name).name, 80)}: {done.words}.")
        for why in done.refused:
            output.complain(why)
    return code


def _remove(store: Store, args: argparse.Namespace) -> int:
    code = 0
    for name in args.session:
        try:
            session = store.find(name)
            store.remove(session)
            output.line(f"Removed {session[:ID_LENGTH]}.")
        except KtchatError as error:
            output.complain(str(error))
            code = 1
    return code


_ACTIONS = {
    "list": _list,
    "search": _search,
    "show": _show,
    "export": _export,
    "import": _import,
    "rm": _remove,
    "cache": _cache,
}
