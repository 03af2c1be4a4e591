"""The stages of the GPU check, in the order in which a ten-minute run learns most; imports nothing heavy."""

from __future__ import annotations

import os

from tests.gpu.children import ROOT, module
from tests.gpu.stages import Case, Stage

TYPES_AT_ONCE = 8
FIDELITY_PARTS = 4
LAYERS = (2, 8)
SHAPE = "qwen3-30b-a3b"
VRAM = (
    ("qwen3-30b-a3b", 8, "Q4_K_M"),
    ("deepseek-v2-lite", 4, "Q4_K_M"),
    ("qwen3-4b", 8, "Q8_0"),
    ("mixtral-8x7b", 2, "Q4_K_M"),
)
CONTEXTS = (4096, 16384, 32768)
SANITIZER = ("compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all")
OPTIONAL = ("deepseek",)
"""Stages that run only where they are named."""
SUITE = ROOT / "tests" / "kernels" / "gpu"


def stages() -> tuple[Stage, ...]:
    """All of them, the optional ones last."""
    cores = os.cpu_count() or 1
    return (
        Stage(
            "machine",
            90,
            (
                Case("versions", module("tests.gpu.machine", "versions"), 40),
                Case("native build", module("kernels.cpu.build"), 90),
                Case("context", module("tests.gpu.machine", "context"), 40),
            ),
        ),
        Stage(
            "kernels",
            60,
            tuple(
                Case(name, module("tests.gpu.kernels_once", name), 45, on_gpu())
                for name in (*_types(), "attention", "latent", "recurrent", "window")
            ),
            beside=min(TYPES_AT_ONCE, cores),
        ),
        Stage(
            "hand-over",
            40,
            tuple(
                Case(name, module("tests.gpu.hand_over", name), 20)
                for name in ("flags", "functions", "nodes", "copies")
            ),
        ),
        Stage(
            "bandwidth",
            60,
            tuple(
                Case(name, module("tests.gpu.bandwidth", name), 30)
                for name in ("copy", "Q4_K", "Q6_K", "Q8_0", "attention")
            ),
        ),
        Stage(
            "self-test",
            80,
            (
                *(
                    Case(f"experts {share}", module("tests.gpu.self_test", share), 30)
                    for share in (1.0, 0.5, 0.0)
                ),
                Case("captured", module("tests.gpu.self_test", "captured"), 40),
            ),
        ),
        Stage(
            "fidelity",
            100,
            tuple(
                Case(f"part {n}", module("tests.gpu.fidelity", n, FIDELITY_PARTS), 100)
                for n in range(FIDELITY_PARTS)
            ),
            beside=FIDELITY_PARTS,
        ),
        Stage(
            "layers",
            120,
            (
                *(Case(f"{n} layers", module("tests.gpu.overhead", n), 60) for n in LAYERS),
                Case("speed", module("tests.gpu.speeds"), 60),
            ),
        ),
        Stage(
            "vram",
            60,
            tuple(
                Case(subject[0], module("tests.gpu.vram", *subject, *CONTEXTS), 40)
                for subject in VRAM
            ),
        ),
        Stage(
            "sanitizer",
            40,
            tuple(
                Case(
                    name,
                    (*SANITIZER, *module("tests.gpu.kernels_once", name)),
                    40,
                    on_gpu(),
                    tool="compute-sanitizer",
                )
                for name in ("Q4_K", "attention")
            ),
            beside=2,
        ),
        Stage(
            "suite",
            600,
            tuple(
                Case(path.stem, module("tests.gpu.suite", path), 200, on_gpu())
                for path in sorted(SUITE.glob("test_*.py"))
            ),
            beside=min(8, cores),
        ),
        Stage("deepseek", 120, (Case("deepseek-v3", module("tests.gpu.deepseek", 100), 120),)),
    )


def on_gpu() -> dict[str, str]:
    """Tests of kernels run on the GPU, and not in Triton's interpreter."""
    return {"KTCHAT_GPU_TESTS": "1"}


def _types() -> list[str]:
    """Quantised types, those of large models first; `kernels.gpu.sizes` needs no torch."""
    from kernels.gpu.sizes import PLANES

    first = ["Q4_K", "Q6_K", "Q5_K", "Q8_0", "MXFP4", "IQ4_XS"]
    return [*first, *(name for name in PLANES if name not in first)]
