"""Speed of the shape of DeepSeek-V3 with as many of its layers as this machine has memory and time for.

`python -m tests.gpu.deepseek SECONDS` chooses the layers, says so, writes them and measures them as
`tests.gpu.speeds` does.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from engine.evaluation.synthetic import SPARE, cache_folder, plan, shape_file
from engine.machine.probe import available_memory
from engine.spec.shapes import SHAPES
from tests.gpu import speeds
from tests.gpu.children import tell
from tests.gpu.verdict import layers_that_fit

SHAPE, RECIPE = "deepseek-v3", "Q4_K_M"
MEMORY = 0.7
"""Part of what is free that may be taken, in RAM and in VRAM."""
FOR_FILE = 0.6
"""Part of the section's time for writing the file and loading it twice."""
FILE_RATE = 250e6
"""Bytes a second of writing and loading together; assumed."""


def main(seconds: float) -> None:
    """Choose, write, measure; the file is removed again."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-", dir=folder) as name:
        measure(Path(name), seconds)


def measure(folder: Path, seconds: float) -> None:
    """Layers that fit into `folder` and the memories, and their speed."""
    shape = SHAPES[SHAPE]
    disk, ram, vram = shutil.disk_usage(folder).free, available_memory(), speeds.free_bytes()
    layers = layers_that_fit(
        sizes,
        shape.layers,
        disk=disk - SPARE,
        ram=int(MEMORY * ram),
        vram=int(MEMORY * vram),
        file_bytes=FILE_RATE * FOR_FILE * seconds,
    )
    room = {"disk_bytes": disk, "ram_bytes": ram, "vram_bytes": vram, "seconds": round(seconds)}
    tell({"name": "chosen", "layers": layers, "of": shape.layers, **room})
    if layers <= shape.dense_layers:
        for name in ("gpu", "split"):
            tell({"name": name, "does_not_fit": f"a layer with experts: {room}"})
        return
    speeds.main(shape_file(SHAPE, layers, folder, recipe=RECIPE))


def sizes(layers: int) -> tuple[int, int]:
    """Bytes of the routed experts and of everything else of so many layers."""
    tensors = plan(SHAPES[SHAPE], layers, RECIPE)
    experts = sum(tensor.nbytes for tensor in tensors if "_exps." in tensor.name)
    return experts, sum(tensor.nbytes for tensor in tensors) - experts


if __name__ == "__main__":
    main(float(sys.argv[1]))
