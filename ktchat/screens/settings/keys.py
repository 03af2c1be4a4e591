"""The keys of the settings, as the key bar shows them."""

from __future__ import annotations

KEYS = (
    ("Enter", "change", "screen.edit"),
    ("Del", "reset", "screen.reset"),
    ("Esc", "back", "screen.leave"),
    ("← →", "less, more", "screen.step(1)"),
    ("p", "presets", "screen.presets"),
)
RELOAD = ("l", "load the model again", "screen.load_again")
