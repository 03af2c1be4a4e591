"""Specs and machines of any size, for tests of the plan."""

from __future__ import annotations

from engine.catalog.numbers import Numbers
from engine.catalog.tensors import spec_of
from engine.machine.probe import Cpu, Gpu, Hardware, Memory
from engine.spec.spec import ModelSpec

GIB = 1 << 30

QWEN3_30B = Numbers(
    "qwen3moe", 48, 2048, 32, 4, 128, 151936, 262144, 128, 8, 768, qk_norm=True
)  # fmt: skip
QWEN36_35B = Numbers(
    "qwen35moe", 40, 2048, 16, 2, 256, 248320, 262144, 256, 8, 512,
    shared_width=512, qk_norm=True, linear_every=4,
)  # fmt: skip
MIXTRAL = Numbers("llama", 32, 4096, 32, 8, 128, 32000, 32768, 8, 2, 14336)
DEEPSEEK_V3 = Numbers(
    "deepseek2", 61, 7168, 128, 128, 192, 129280, 163840, 256, 8, 2048, 18432, 3, 2048,
    1536, 512, 128, 64, 128,
)  # fmt: skip
GPT_OSS = Numbers(
    "gpt-oss", 24, 2880, 64, 8, 64, 201088, 131072, 32, 4, 2880, biases=True, window=128,
    full_every=2,
)  # fmt: skip
FOREIGN = Numbers("step35", 24, 2880, 64, 8, 64, 201088, 131072, 32, 4, 2880)
"""Of an architecture that is not ours."""
LLAMA_70B = Numbers(
    "llama", 80, 8192, 64, 8, 128, 128256, 131072, 1, 1, 28672, ffn=28672, dense_layers=80
)  # fmt: skip
"""Dense: `dataclasses.replace(spec(LLAMA_70B), moe=None)`."""


def spec(numbers: Numbers = QWEN3_30B, quant: str = "Q4_K_M") -> ModelSpec:
    """A model of these numbers."""
    return spec_of(numbers, "model", quant)


def machine(ram: float = 64, *vram: float, bandwidth: float = 50, total: float = 0) -> Hardware:
    """A machine with so many free GiB of RAM and of VRAM on each GPU."""
    return Hardware(
        name="made up",
        cpu=Cpu("cpu", 8, "avx512", True),
        memory=Memory(int((total or ram) * GIB), int(ram * GIB), ((8, bandwidth),)),
        gpus=tuple(
            Gpu(
                f"GPU {index}",
                int(size * GIB),
                int(size * GIB),
                compute="8.9",
                pcie_gen=4,
                pcie_width=16,
                read_gb_s=1000.0,
            )
            for index, size in enumerate(vram)
        ),
        assumed="for a test",
    )
