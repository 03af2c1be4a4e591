"""The screen on a scripted engine that talks for minutes, about 200 tokens a second."""

from __future__ import annotations

from ktchat import cli
from tests.support.fake_engine import FakeEngine, Reply

PARAGRAPH = """\
## Part {n}

A mixture-of-experts model has far more weights than one token needs. Per layer the router picks \
**8 of 128** experts, so most of the file is *not* read for a given token; see `router.py`.

1. The GPU keeps what **every** token needs.
2. The CPU multiplies the chosen experts.
   - no copy over the bus
   - no second quantisation

```python
def active_weights(layers: int, top_k: int) -> int:
    return layers * top_k * 3  # gate, up and down
```

"""


def main() -> int:
    """Run the screen through the real command line."""
    text = "".join(PARAGRAPH.format(n=n) for n in range(400))
    engine = FakeEngine([Reply(text, token_seconds=0.005)], context=1 << 20)
    return cli.main(["-m", "/models/Scripted.gguf"], engine_factory=lambda: engine)


if __name__ == "__main__":
    raise SystemExit(main())
