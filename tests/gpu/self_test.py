"""The engine's own trial of a GPU: `python -m tests.gpu.self_test SHARE`, or `captured` for its replies.

SHARE of the guide's experts lie on the GPU. `captured` compares replies of captured passes with those of passes
done op by op.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from engine.runtimes.gpu_selftest import ALLOWED, difference
from tests.gpu import placements
from tests.gpu.children import tell


def trial(share: float) -> int:
    """1 where the GPU differs by more than the engine allows."""
    found = difference(0, share, placements.gpu)
    tell({"experts": share, "error": found, "allowed": ALLOWED[share], "ok": found <= ALLOWED[share]})  # fmt: skip
    return 0 if found <= ALLOWED[share] else 1


def captured() -> int:
    """1 where replies differ."""
    from tests.gpu.fidelity import same_replies
    from tests.support.tiny import quantise, tiny_model

    different = 0
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ("qwen3moe", "qwen3"):
            path = tiny_model(architecture, Path(folder), expert_type="F32")
            same = same_replies(quantise(path, "Q4_K", only_experts=False), placements.gpu)
            tell({"model": architecture, "same": same})
            different += not same
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(captured() if sys.argv[1] == "captured" else trial(float(sys.argv[1])))
