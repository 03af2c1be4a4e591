"""`ktchat models`: its arguments, and what changes files on this machine.

Commands that print or ask the hub are modules of their own, imported when they are asked for.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.units import byte_size
from engine.errors import KtchatError
from ktchat.cli import background, load_options, output
from ktchat.common import paths
from ktchat.common.errors import UsageError
from ktchat.common.text import one_line
from ktchat.library.models import Source, find_models, leads_outside

if TYPE_CHECKING:
    from engine.downloads.download import Download

SPEC = "owner/repo[:QUANTISATION or FILE], an address at the hub, or ID[:QUANT] of the catalogue"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat models`."""
    parser = subparsers.add_parser(
        "models", help="list, search, download, check and remove models", allow_abbrev=False
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="models here, whether each fits and how fast it is, and unfinished downloads"
    )
    lists = listing.add_mutually_exclusive_group()
    lists.add_argument("--others", action="store_true", help="models of other programs")
    lists.add_argument("--catalogue", action="store_true", help="known models, best here first")
    search = actions.add_parser("search", help="find models on the hub")
    search.add_argument("query", metavar="QUERY", nargs="+", help="words of the name")
    search.add_argument("--limit", type=int, default=20, metavar="N", help="at most (default: 20)")
    info = actions.add_parser("info", help="what a model or a repository is, and whether it fits")
    info.add_argument("spec", metavar="MODEL", help=f"a file here, {SPEC}")
    pull = actions.add_parser("pull", help="download a model, or go on with it")
    pull.add_argument("spec", metavar="SPEC", help=SPEC)
    verify = actions.add_parser("verify", help="compare models with their checksums")
    verify.add_argument(
        "model", metavar="MODEL", nargs="?", help="a path or a SPEC; default: all that were got"
    )
    verify.add_argument("--force", action="store_true", help="read unchanged files too")
    take = actions.add_parser("import", help="link or move a file into the models folder")
    take.add_argument("file", metavar="FILE", help="a GGUF file, the first of a split model")
    take.add_argument("--move", action="store_true", help="move it instead of linking it")
    remove = actions.add_parser("rm", help="delete a model, or what came of it")
    remove.add_argument("model", metavar="MODEL", help="a path or a SPEC")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    for action in (listing, search, info, pull, verify, take, remove):
        action.add_argument("--json", action="store_true", help="print JSON")
    for action in (search, info, pull):
        load_options.add_send_token(action)


def main(args: argparse.Namespace) -> int:
    """Run one action; returns the exit code."""
    module = _MODULES.get(args.action)
    if module is None:
        return _ACTIONS[args.action](args)
    answer: int = importlib.import_module(f"ktchat.cli.{module}").main(args)
    return answer


# verify, import, rm


def _verify(args: argparse.Namespace) -> int:
    from engine.downloads.integrity import check_files

    folder = paths.models_folder()
    models = [_local(args.model)] if args.model else _own()
    code, results = 0, []
    for path in models:
        name = one_line(path.name, 200)
        try:
            checked = background.run(
                lambda report, path=path: check_files(  # type: ignore[misc]  # bound at once
                    path,
                    args.force,
                    lambda done, total: report(f"checking {path.name}", done, total),
                    folder,
                )
            )
        except KtchatError as error:
            code = 1
            results.append({"path": str(path), "intact": False, "error": error.to_dict()})
            output.complain(one_line(str(error), 1000))
            continue
        hashed = any(part.hashed for part in checked)
        sums = [part.checksum for part in checked]
        results.append({"path": str(path), "intact": True, "hashed": hashed, "checksums": sums})
        if not args.json:
            output.line(f"{name}: intact" + ("" if hashed else " (unchanged since it was checked)"))
    if args.json:
        output.line(json.dumps(results, indent=2))
    elif not models:
        output.line(f"No models in {folder}")
    return code


def _import(args: argparse.Namespace) -> int:
    from engine.downloads.import_local import import_model

    done = import_model(Path(args.file), paths.models_folder(), args.move)
    if args.json:
        output.line(json.dumps({"path": str(done.path), "way": done.mode}))
    else:
        output.line(f"{done.mode[0].upper()}{done.mode[1:]}: {one_line(str(done.path), 1000)}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from engine.downloads.integrity import parts_of, remove, remove_empty_folders

    folder = paths.models_folder()
    from ktchat.cli.models_list import unfinished

    for download in unfinished():
        if args.model in (download.key, str(download.paths[0])):
            return _discard(args, download)
    path = _local(args.model)
    if folder.absolute() not in path.absolute().parents:
        raise UsageError(
            f"{one_line(str(path))} is not in the models folder",
            "Only what lies there is removed",
            "Delete it yourself if you mean to",
        )
    parts = parts_of(path)
    what = one_line(path.name, 200) + (f" and {len(parts) - 1} more files" if parts[1:] else "")
    if not _agreed(args, f"Delete {what}?"):
        return 1
    freed = remove(path)
    remove_empty_folders(path.parent, folder)
    _tell_removed(args, str(path), freed)
    return 0


def _discard(args: argparse.Namespace, download: Download) -> int:
    done = download.progress().done
    if not _agreed(args, f"Delete the {byte_size(done)} that came of {download.key}?"):
        return 1
    download.discard()
    _tell_removed(args, str(download.paths[0]), done)
    return 0


def _tell_removed(args: argparse.Namespace, path: str, freed: int) -> None:
    if args.json:
        output.line(json.dumps({"removed": path, "freed": freed}))
    else:
        output.line(f"Removed {one_line(path, 1000)}: {byte_size(freed)}.")


def _agreed(args: argparse.Namespace, question: str) -> bool:
    if args.yes:
        return True
    if not (output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)):
        raise UsageError("Nothing was deleted", "Nobody can be asked here", "Add --yes")
    output.write(f"{question} [y/N] ", sys.stderr)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _in_models_folder() -> list[Path]:
    return [Path(path) for path, source in find_models() if source == Source.FOLDER]


def _own() -> list[Path]:
    """Those of the models folder that are in it: links out of it were not got."""
    return [path for path in _in_models_folder() if not leads_outside(str(path))]


def _local(name: str) -> Path:
    """The first file of the model that a person names: a path, a file's name, or a SPEC."""
    if Path(name).is_file():
        return Path(name).absolute()
    from engine.hub.names import parse_ref, quantisation_of

    folder = paths.models_folder()
    here = _in_models_folder()
    found = [path for path in here if name in (path.name, path.stem, str(path.relative_to(folder)))]
    if not found and "/" in name:
        ref = parse_ref(name)
        place = folder / ref.repo
        found = [path for path in here if place in path.parents]
        if ref.file:
            found = [path for path in found if path == place / ref.file]
        elif ref.quantisation:
            found = [path for path in found if quantisation_of(path.name) == ref.quantisation]
    if len(found) == 1:
        return found[0]
    why = ", ".join(one_line(str(path.relative_to(folder)), 100) for path in found[:8])
    raise UsageError(
        f"{one_line(name)} names {len(found) or 'no'} models here", why, "See: ktchat models list"
    )


_MODULES = {
    "list": "models_list",
    "info": "models_info",
    "search": "models_hub",
    "pull": "models_hub",
}
_ACTIONS = {"verify": _verify, "import": _import, "rm": _remove}
