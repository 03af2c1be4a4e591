"""The program's own colours, dark and light. One accent; amber warns, red fails, grey is dim.

The other themes are Textual's, those of 16 colours (`ansi-dark`, `ansi-light`) among them.
"""

from __future__ import annotations

from textual.app import App
from textual.theme import Theme

DARK, LIGHT = "ktchat-dark", "ktchat-light"

THEMES = (
    Theme(
        name=DARK,
        primary="#7fb8ad",
        secondary="#7fb8ad",
        accent="#7fb8ad",
        warning="#d9a75f",
        error="#e2908a",
        success="#93b77d",
        foreground="#d4d7d9",
        background="#15181b",
        surface="#1d2125",
        panel="#262b30",
        dark=True,
        variables={
            "border": "#4d6f69",
            "border-blurred": "#343b41",
            "block-cursor-foreground": "#e8ebec",
            "block-cursor-background": "#2d3b3a",
            "block-cursor-text-style": "none",
            "block-cursor-blurred-foreground": "#d4d7d9",
            "block-cursor-blurred-background": "#23282c",
            "input-cursor-background": "#d4d7d9",
            "input-cursor-foreground": "#15181b",
            "input-selection-background": "#3b5a55",
            "input-selection-foreground": "#e8ebec",
            "screen-selection-background": "#3b5a55",
            "screen-selection-foreground": "#e8ebec",
            "scrollbar": "#2c3237",
            "scrollbar-hover": "#3d464c",
            "scrollbar-active": "#7fb8ad",
            "scrollbar-background": "#15181b",
            "scrollbar-background-hover": "#15181b",
            "scrollbar-background-active": "#15181b",
            "scrollbar-corner-color": "#15181b",
        },
    ),
    Theme(
        name=LIGHT,
        primary="#22635a",
        secondary="#22635a",
        accent="#22635a",
        warning="#805206",
        error="#a5322a",
        success="#3f672a",
        foreground="#2a2e31",
        background="#fbfaf7",
        surface="#f1efea",
        panel="#e6e3dc",
        dark=False,
        variables={
            "border": "#8db3ac",
            "border-blurred": "#d3cfc6",
            "block-cursor-foreground": "#1c2022",
            "block-cursor-background": "#d6e6e2",
            "block-cursor-text-style": "none",
            "block-cursor-blurred-foreground": "#2a2e31",
            "block-cursor-blurred-background": "#e9e6df",
            "input-cursor-background": "#2a2e31",
            "input-cursor-foreground": "#fbfaf7",
            "input-selection-background": "#c3ddd7",
            "input-selection-foreground": "#1c2022",
            "screen-selection-background": "#c3ddd7",
            "screen-selection-foreground": "#1c2022",
            "scrollbar": "#dedad2",
            "scrollbar-hover": "#c9c4ba",
            "scrollbar-active": "#22635a",
            "scrollbar-background": "#fbfaf7",
            "scrollbar-background-hover": "#fbfaf7",
            "scrollbar-background-active": "#fbfaf7",
            "scrollbar-corner-color": "#fbfaf7",
        },
    ),
)

SIXTEEN = {DARK: "ansi-dark", LIGHT: "ansi-light"}
"""What stands for our themes where there are sixteen colours: theirs would all be black, or all grey."""


def theme_for(name: str, app: App[None]) -> str:
    """The theme by its name, or its like for the colours that the terminal has."""
    few = not app.is_headless and app.console.color_system in ("standard", "windows")
    return SIXTEEN.get(name, name) if few else name
