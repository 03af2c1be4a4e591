"""Whether a GPU computes what it should: tried once with the built-in guide, before a model goes there.

A kernel that a compiler or a driver turns into something slightly else makes a model dumber, and nobody
sees it. So the guide reads tokens there and in float32, as a chunk and one by one, with its experts on
the GPU and on the host; what was found is kept for this GPU and these versions. `ktchat verify` looks
closer, at a model of the person's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from engine.common import measurements
from engine.common.json_files import assets_folder
from engine.errors import GpuUnusableError
from engine.gguf.file import GGUFFile
from engine.machine.types import Hardware
from engine.model.transformer import Transformer, page_table
from engine.plan.placement import LayerPlace, Placement
from engine.runtimes.native import PAGE_SIZE
from engine.runtimes.placed import OpenDevice, op_sets
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from kernels.ops import Floats

ALLOWED = {1.0: 1e-4, 0.5: 1e-3, 0.0: 1e-3}
"""Largest squared error of logits, relative to the logits, by the share of experts on the GPU. float16 is
to make some 1e-5, the CPU's rounding of experts' inputs to 8 bits makes 7e-5; a token that does not see
itself 7e-3."""
CHUNK, STEPS = 24, 16
"""Tokens that are read at once, and then one by one."""

Say = Callable[[str], None]

_BOOK = "gpus"
_GUIDE = "ktchat-guide.gguf"


class GpuDiffersError(GpuUnusableError):
    """A GPU computes something else than float32 does."""


def check_gpu(gpu: int, hardware: Hardware, open_device: OpenDevice, say: Say) -> None:
    """Compare, unless it was done on this GPU with these versions before. Takes some seconds, most of them
    the compiler's. Raises `GpuDiffersError`."""
    name, software = hardware.gpus[gpu].name, hardware.software
    versions = (software.torch, software.triton, software.flashinfer, hardware.gpus[gpu].driver)
    key = hashlib.sha256("|".join((name, *versions, _our_kernels())).encode()).hexdigest()[:16]
    book = measurements.read(_BOOK)
    if book.get(key) == name:
        return
    say(f"Checking once that {name} computes what it should")
    for experts, allowed in ALLOWED.items():
        found = difference(gpu, experts, open_device)
        if not found <= allowed:
            where = {1.0: "on the GPU", 0.5: "on both sides", 0.0: "on the CPU"}[experts]
            raise GpuDiffersError(
                f"{name} does not compute what it should",
                f"With the guide's experts {where} logits differ by {found:.1e} from float32's;"
                f" {allowed:.0e} is allowed",
                "Use --device cpu, and report it with what ktchat doctor --json says",
            )
    measurements.write(_BOOK, {**book, key: name})


def _our_kernels() -> str:
    """A digest of the sources of everything that computes."""
    digest = hashlib.sha256()
    folder = Path(kernels.__file__).parent
    for source in sorted([*folder.rglob("*.py"), *folder.rglob("src/*")]):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def difference(
    gpu: int, experts: float, open_device: OpenDevice, guide: Path | None = None
) -> float:
    """The error of the guide on a GPU with this share of its experts there: of the positions' the worst but
    a tenth, since where two experts nearly tie any rounding may choose the other."""
    from kernels.reference import ReferenceOps

    with GGUFFile.open(guide or assets_folder() / _GUIDE) as file, ExitStack() as opened:
        spec = read_spec(file)
        slots = int(experts * spec.moe.experts) if spec.moe else 0
        placement = Placement((LayerPlace(gpu, slots),) * spec.layers, CHUNK + STEPS, "f16")
        each, _ = op_sets(placement, open_device, None, opened)
        ours, wanted = _logits(file, spec, each), _logits(file, spec, ReferenceOps())
    errors = np.square(ours - wanted).mean(axis=1) / np.square(wanted).mean(axis=1)
    return float(np.sort(errors)[len(errors) * 9 // 10 - 1])


def _logits(file: GGUFFile, spec: ModelSpec, ops: Any) -> Floats:
    """Of every position, (CHUNK + STEPS, vocabulary)."""
    pages = -(-(CHUNK + STEPS) // PAGE_SIZE)
    model: Transformer[Any, Any, Any] = Transformer(file, spec, ops, pages, PAGE_SIZE)
    tokens = np.random.default_rng(0).integers(0, spec.vocab, CHUNK + STEPS).astype(np.int32)
    table = page_table(list(range(pages))[::-1])
    rows = [model.forward_all(tokens[:CHUNK], table, 0).copy()]
    for position in range(CHUNK, CHUNK + STEPS):
        rows.append(model.forward(tokens[position : position + 1], table, position)[None].copy())
    return np.concatenate(rows)
