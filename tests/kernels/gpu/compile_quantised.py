"""Compile the quantised products for GPUs that need not be there, one type after another.

Run as `python -m tests.kernels.gpu.compile_quantised TYPES ARCHS [CASE ...]`, such as
`Q4_K,Q6_K 80,120 gemv`, without TRITON_INTERPRET; TYPES may be `all`, CASE is how names begin.
Writes one JSON line a kernel: shared memory, registers, spills, loads and barriers, as the machine
code states them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import torch

from kernels.gpu.moe import experts as experts_of
from kernels.gpu.quant import matmul
from kernels.gpu.quant.formats import FORMATS
from kernels.gpu.quant.weight import PackedWeight
from kernels.quants import BY_NAME
from tests.kernels.gpu.compile_offline import compiling, resources


def _products(name: str) -> dict[str, Callable[[], Any]]:
    """Every way in, at shapes as large models have them."""
    dense = PackedWeight.empty(BY_NAME[name], (128, 2048))
    experts = PackedWeight.empty(BY_NAME[name], (8, 128, 768))
    ids = torch.arange(8, dtype=torch.int32)
    rows = torch.zeros(64, 768)
    some = matmul.groups(ids.repeat(8), 8)
    file = torch.zeros(3, 128, BY_NAME[name].row_bytes(768), dtype=torch.uint8)
    return {
        "pack": lambda: experts.store(file, 2),
        "gemv, 1 row": lambda: matmul.gemv(torch.zeros(1, 2048), dense),
        "gemv, 8 rows": lambda: matmul.gemv(torch.zeros(8, 2048), dense),
        "expert gemv": lambda: matmul.expert_gemv(rows[:1], experts, ids),
        "swiglu": lambda: experts_of.expert_hidden(rows[:1], experts, experts, ids),
        "down": lambda: experts_of.down_add(
            rows[:8], experts, ids[None], torch.zeros(1, 8), torch.zeros(1, 128)
        ),
        "biased swiglu": lambda: experts_of.expert_hidden(
            rows[:1], experts, experts, ids, (torch.zeros(8, 128),) * 2, 1
        ),
        "biased down": lambda: experts_of.down_add(
            *(rows[:8], experts, ids[None], torch.zeros(1, 8), torch.zeros(1, 128)),
            torch.zeros(8, 128),
        ),
        "gemm, 16 rows": lambda: matmul.gemm(matmul.fp16_activations(torch.zeros(16, 2048)), dense),
        "gemm, 1024 rows": lambda: matmul.gemm(
            matmul.fp16_activations(torch.zeros(1024, 2048)), dense
        ),
        "grouped gemm": lambda: matmul.grouped_gemm(
            matmul.fp16_activations(rows), experts, matmul.groups(ids.repeat(64), 8)
        ),
        "gathered": lambda: matmul.gathered_gemm(matmul.fp16_activations(rows), experts, some, 1),
        "scattered": lambda: matmul.scattered_gemm(
            matmul.fp16_activations(rows), experts, some, torch.zeros(64, 128)
        ),
    }


def _loads(ptx: str) -> dict[str, int]:
    """How many loads of each width, and barriers: a conversion in the loop would show here."""
    found = re.findall(r"ld\.global[\w.]*?((?:\.v\d)?\.b\d+)", ptx)
    counts = {width[1:]: found.count(width) for width in sorted(set(found))}
    return counts | {"barriers": ptx.count("bar.sync")}


def main(names: list[str], archs: list[int], cases: list[str]) -> None:
    for arch in archs:
        for name in names:
            for case, launch in _products(name).items():
                if not case.startswith(tuple(cases) or ""):
                    continue
                with compiling(arch) as compiled:
                    launch()
                for kernel in compiled:
                    figures = {"shared": kernel.metadata.shared, **resources(kernel)}
                    figures |= _loads(kernel.asm["ptx"])
                    sys.stdout.write(
                        json.dumps({"arch": arch, "type": name, "case": case, **figures}) + "\n"
                    )


if __name__ == "__main__":
    types = list(FORMATS) if sys.argv[1] == "all" else sys.argv[1].split(",")
    main(types, [int(arch) for arch in sys.argv[2].split(",")], sys.argv[3:])
