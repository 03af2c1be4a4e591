"""The screen on a scripted engine, to look at and to try: `python -m tests.tui.demo`.

Sessions and settings live in a temporary folder (or in KTCHAT_HOME, when that is set).
"""

from __future__ import annotations

import os
import sys
import tempfile

from tests.support.fake_engine import FakeEngine, Reply

THINKING = (
    "The person asks why the experts run on the CPU. The router chooses eight of them for each "
    "token; the rest lie idle. Their weights are large and are read once, so bandwidth counts.\n"
) * 2

REPLY = """A mixture-of-experts model has far more weights than one token needs. Per layer the \
router picks **8 of 128** experts, so most of the file is *not* read for a given token.

What counts is bandwidth:

| where | what | reads |
|---|---|--:|
| GPU | attention, router, shared experts | 1.1 GB |
| RAM | routed experts | 1.8 GB |

1. The GPU keeps what **every** token needs.
2. The CPU multiplies the chosen experts, straight from their quantised blocks.
   - no copy over the bus
   - no second quantisation

```python
def active_weights(layers: int, top_k: int, hidden: int, width: int) -> int:
    # gate, up and down
    return layers * top_k * 3 * hidden * width
```

See <https://github.com/kvcache-ai/ktransformers> and 中文也可以：每层只选择少数专家，所以速度取决于内存带宽。
"""


def main() -> None:
    """Run the screen; `--fast` streams without pauses."""
    os.environ.setdefault("KTCHAT_HOME", tempfile.mkdtemp(prefix="ktchat-demo-"))
    from ktchat.app import KtchatApp

    pause = 0.0 if "--fast" in sys.argv else 0.03
    engine = FakeEngine(
        [
            Reply(
                REPLY, THINKING, token_seconds=pause, prefill_seconds=40 * pause, prefill_steps=10
            ),
            Reply("Short and **to the point**.", token_seconds=pause),
        ],
        load_seconds=20 * pause,
        load_steps=10,
    )
    app = KtchatApp("/models/Qwen3-30B-A3B.gguf", engine=engine)
    app.run()
    raise SystemExit(app.return_code or 0)


if __name__ == "__main__":
    main()
