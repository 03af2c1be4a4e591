"""Names on the hub: what a person types, quantisations in file names, files that make one model.

Every name that comes from outside is checked here before it may become part of a path.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from engine.common.model_names import QUANTISATION
from engine.common.split_names import Part, split_part
from engine.hub.errors import NoModelError, UnsafeNameError
from kernels.quants import IK_TYPES

HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
MAX_NAME = 200
"""Bytes of one part of a path; leaves room for the endings that a download adds."""
MAX_PARTS = 1024

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[\w][\w./-]{0,199}", re.ASCII)
_NOT_A_MODEL = re.compile(
    r"mmproj|imatrix|^mtp-|(?:^|[-._])(?:vocab|adapter|eagle-?3|dflash)(?:[-._]|$)", re.IGNORECASE
)
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\.|$)", re.IGNORECASE)

PREFERENCE = (
    "Q4_K_M", "UD-Q4_K_XL", "Q4_K_XL", "MXFP4", "MXFP4_MOE", "Q4_K_L", "Q4_K", "Q4_K_S", "UD-Q4_K_M",
    "IQ4_NL", "IQ4_XS", "UD-IQ4_XS", "IQ4_K", "IQ4_KS", "IQ4_KSS", "Q4_1", "Q4_0", "UD-Q3_K_XL", "Q3_K_XL",
    "Q3_K_L", "Q3_K_M", "Q3_K", "IQ3_M", "IQ3_K", "Q3_K_S", "IQ3_S", "IQ3_KS", "IQ3_XS", "IQ3_XXS",
    "UD-IQ3_XXS", "UD-Q2_K_XL", "Q2_K_L", "Q2_K", "IQ2_KL", "IQ2_M", "UD-IQ2_M", "IQ2_K", "IQ2_S", "IQ2_KS",
    "IQ2_XS", "IQ2_XXS", "UD-IQ2_XXS", "IQ1_M", "UD-IQ1_M", "IQ1_S", "UD-IQ1_S", "Q5_K_M", "UD-Q5_K_XL",
    "Q5_K_S", "IQ5_K", "IQ5_KS", "Q5_1", "Q5_0", "Q6_K", "UD-Q6_K_XL", "IQ6_K", "Q6_0", "Q8_0", "UD-Q8_K_XL",
    "BF16", "F16", "F32",
)  # fmt: skip
"""Quantisations, the first that fits is proposed: 4 bits lose little and read half of 8 bits."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a person asked for: a repository, and in it a quantisation or a file, or neither."""

    repo: str
    quantisation: str = ""
    file: str = ""
    revision: str = "main"

    def __str__(self) -> str:
        choice = self.file or self.quantisation
        return f"{self.repo}:{choice}" if choice else self.repo


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository at a commit. `checksum` is `sha256:HEX` or `git-sha1:HEX`."""

    repo: str
    commit: str
    path: str
    size: int
    checksum: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class HubModel:
    """One model of a repository: a file, or all parts of a split one in order."""

    repo: str
    commit: str
    quantisation: str
    """As in the file's name, upper case; empty when the name has none."""
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        """What stands behind the colon: the quantisation, or the file's name."""
        return self.quantisation or self.files[0].name

    @property
    def spec(self) -> str:
        """The name by which `parse_ref` finds it again."""
        return f"{self.repo}:{self.label}"


def parse_ref(text: str, hosts: frozenset[str] = HUB_HOSTS) -> ModelRef:
    """`owner/repo`, `owner/repo:Q4_K_M`, `owner/repo:file.gguf`, `owner/repo/file.gguf`,
    `owner/repo@revision...`, or an address of any of these at one of `hosts`.

    Raises `NoModelError` for anything else.
    """
    rest = text.strip()
    if "://" in rest or rest.split("/", 1)[0].lower() in hosts:
        rest = _path_of(rest, hosts)
    rest, _, choice = rest.partition(":")
    parts = rest.strip("/").split("/")
    revision, file = "main", ""
    if len(parts) > 4 and parts[2] in ("blob", "resolve", "tree"):
        revision, file = parts[3], "/".join(parts[4:])
    elif len(parts) == 4 and parts[2] == "tree":
        revision = parts[3]
    elif len(parts) > 2:
        file = "/".join(parts[2:])
    repo, at, named = "/".join(parts[:2]).partition("@")
    revision = named if at else revision
    if choice.lower().endswith(".gguf"):
        file, choice = choice, ""
    if not is_repo(repo) or not _REVISION.fullmatch(revision) or (file and choice):
        raise _unknown(text)
    if file and not file.lower().endswith(".gguf"):
        raise _unknown(text)
    return ModelRef(repo, choice.upper(), safe_path(file) if file else "", revision)


def is_repo(text: str) -> bool:
    """Whether `text` is `owner/name` as the hub allows it."""
    return bool(_REPO.fullmatch(text)) and ".." not in text and "--" not in text.split("/")[0]


def _path_of(text: str, hosts: frozenset[str]) -> str:
    try:
        address = urlsplit(text if "://" in text else f"https://{text}")
        host = address.hostname
    except ValueError:
        raise _unknown(text) from None
    if address.scheme not in ("http", "https") or host not in hosts:
        raise NoModelError(
            "That address is not one of the hub",
            f"Models come from {', '.join(sorted(hosts))}",
            "Use owner/repo:QUANTISATION, or set HF_ENDPOINT to a mirror",
        )
    return unquote(address.path)


def _unknown(text: str) -> NoModelError:
    return NoModelError(
        f"{ascii(text[:100])[1:-1]} does not name a model",
        "",
        "Use owner/repo:QUANTISATION, for example Qwen/Qwen3-30B-A3B-GGUF:Q4_K_M",
    )


def safe_path(path: str) -> str:
    """`path` if every part of it is a harmless file name on POSIX and Windows.

    Raises `UnsafeNameError`: absolute, `..`, hidden, control or reserved characters, device names,
    too long, a trailing dot or space.
    """
    parts = path.split("/")
    for part in parts:
        why = _unsafe(part)
        if why:
            raise UnsafeNameError(
                f"The hub's file name {ascii(path[:100])[1:-1]} is not used",
                why,
                "Choose another file",
            )
    if len(parts) > 8:
        raise UnsafeNameError("A file of the hub lies too deep", "It is in more than 7 folders")
    return path


def _unsafe(part: str) -> str:
    if not part or part.startswith((".", "-", "~", " ")):
        return "It is empty, hidden, or begins like an option"
    if part.endswith((".", " ")) or _RESERVED.match(part):
        return "Windows does not allow it"
    if set(part) & set('\\:*?"<>|%$`'):
        return "It has characters that systems give a meaning"
    if any(unicodedata.category(char)[0] == "C" for char in part):
        return "It has characters that cannot be seen"
    if len(part.encode("utf-8", "replace")) > MAX_NAME:
        return f"A part of it is longer than {MAX_NAME} bytes"
    return ""


def quantisation_of(path: str) -> str:
    """The quantisation in a file's name, else in the names of its folders; empty if none."""
    for part in reversed(path.split("/")):
        found = list(QUANTISATION.finditer(part))
        if found:
            prefix, kind = found[-1].groups()
            kind = {"FP16": "F16", "FP32": "F32"}.get(kind.upper(), kind.upper())
            return ("UD-" if prefix else "") + kind
    return ""


_IK = re.compile(r"(?:IQ[1-6]_K(?:SS|S|L|T)?|Q6_0)(?:_R\d+)?|.+_R\d+")


def note_of(quantisation: str) -> str:
    """What is said beside a quantisation of ik_llama.cpp; nothing beside others."""
    if not _IK.fullmatch(quantisation):
        return ""
    runs = "runs" if quantisation in IK_TYPES or quantisation == "IQ3_KL" else "does not run"
    return f"made for ik_llama.cpp: {runs} here"


def is_model_file(path: str) -> bool:
    """Whether a repository's file may hold a model: no projector, vocabulary, adapter or draft."""
    name = path.rsplit("/", 1)[-1]
    if not name.lower().endswith(".gguf") or _NOT_A_MODEL.search(name.removesuffix(".gguf")):
        return False
    try:
        safe_path(path)
    except UnsafeNameError:
        return False
    return True


def group_models(files: Iterable[HubFile]) -> list[HubModel]:
    """Whole models in order of size; a split model with missing or doubled parts is left out."""
    groups: dict[tuple[str, int], dict[int, HubFile]] = {}
    for file in files:
        if not is_model_file(file.path):
            continue
        part = split_part(file.path) or Part(file.path, 1, 1)
        key, number = (part.stem, part.count), part.number
        groups.setdefault(key, {})[number] = file
    models = []
    for (_, count), parts in groups.items():
        if count <= MAX_PARTS and sorted(parts) == list(range(1, count + 1)):
            ordered = tuple(parts[number] for number in sorted(parts))
            first = ordered[0]
            label = quantisation_of(first.path)
            models.append(HubModel(first.repo, first.commit, label, ordered))
    return sorted(models, key=lambda model: (model.size, model.files[0].path))


def best(
    models: Sequence[HubModel], fits: Callable[[HubModel], bool] = lambda _: True
) -> HubModel | None:
    """The model to propose: the first of `PREFERENCE` that fits, else the smallest."""
    order = {name: rank for rank, name in enumerate(PREFERENCE)}
    able = [model for model in models if fits(model)]
    rest = len(order)  # the smallest of those without a place, but none that does not run
    places = {
        m: order.get(m.quantisation, rest + ("not run" in note_of(m.quantisation))) for m in able
    }
    ranked = sorted(able, key=lambda m: (places[m], m.size))
    return ranked[0] if ranked else min(models, key=lambda m: m.size, default=None)


def choose(
    models: Sequence[HubModel],
    ref: ModelRef,
    fits: Callable[[HubModel], bool] = lambda _: True,
) -> HubModel:
    """The model that `ref` names. Raises `NoModelError` with the choices that there are."""
    if not models:
        raise NoModelError(
            f"{ref.repo} has no GGUF model",
            "Its files are of another kind",
            f"Search for a GGUF version: ktchat models search {ref.repo.split('/')[1]}",
        )
    if ref.file:
        found = [m for m in models if any(f.path == ref.file for f in m.files)]
        found = found or [m for m in models if any(f.name == ref.file for f in m.files)]
    elif ref.quantisation:
        found = [m for m in models if m.quantisation == ref.quantisation]
        found = found or [m for m in models if m.quantisation == f"UD-{ref.quantisation}"]
    else:
        proposed = best(models, fits)
        found = [proposed] if proposed else []
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(m.files[0].path for m in found[:8])
        raise NoModelError(
            f"{ref} names {len(found)} models", names, "Name a file: owner/repo:FILE.gguf"
        )
    names = ", ".join(m.label for m in models[:40])
    raise NoModelError(f"{ref.repo} has no {ref.file or ref.quantisation}", f"It has {names}")
