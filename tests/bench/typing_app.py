"""The screen on a scripted engine that talks for minutes, about 200 tokens a second.

While F12's panel is open it tells twice a second how a model of 94 layers of 512 experts computes.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

from engine.common.insight import ExpertCounts, Insight, encoded
from engine.protocol import Event
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


LAYERS, EXPERTS, EVERY = 94, 512, 0.5


class Observed(FakeEngine):
    """Sends insights while somebody watches."""

    insights: tuple[Insight, Insight]

    async def generate(self, *arguments: Any, **named: Any) -> AsyncIterator[Event]:
        """The scripted reply, with an insight now and then."""
        told, number = time.monotonic(), 0
        async for event in super().generate(*arguments, **named):
            yield event
            if self.observed and time.monotonic() - told > EVERY:
                told, number = time.monotonic(), number + 1
                yield self.insights[number % 2]


def insight() -> Insight:
    """Of a reply of 1000 tokens."""
    counts = struct.pack(
        f"<{LAYERS * EXPERTS}I", *(random.randrange(40) for _ in range(LAYERS * EXPERTS))
    )
    experts = ExpertCounts(0, LAYERS, EXPERTS, 10, encoded(counts), encoded(counts))
    hops = 0.05, 0.002, 0.001, 0.01
    return Insight(
        1000, 1000, experts, "", 2 << 30, 1 << 30, hops, 42.0, 900.0, 0.063, 1.0, (15,) * 63
    )


def main() -> int:
    """Run the screen through the real command line."""
    text = "".join(PARAGRAPH.format(n=n) for n in range(400))
    engine = Observed([Reply(text, token_seconds=0.005)], context=1 << 20)
    engine.insights = insight(), insight()
    return cli.main(["-m", "/models/Scripted.gguf"], engine_factory=lambda: engine)


if __name__ == "__main__":
    raise SystemExit(main())
