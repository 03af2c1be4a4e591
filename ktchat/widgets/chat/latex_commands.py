"""LaTeX's commands by what is done with them; symbols are unicodeit's."""

from __future__ import annotations

SPACES = {
    r"\,": " ",
    r"\;": " ",
    r"\:": " ",
    r"\ ": " ",
    r"\quad": "  ",
    r"\qquad": "   ",
    "~": " ",
}
NOTHING = frozenset(
    [
        r"\left",
        r"\right",
        r"\big",
        r"\Big",
        r"\bigg",
        r"\Bigg",
        r"\bigl",
        r"\bigr",
        r"\Bigl",
        r"\Bigr",
        r"\biggl",
        r"\biggr",
        r"\middle",
        r"\!",
        r"\displaystyle",
        r"\textstyle",
        r"\limits",
        r"\nolimits",
        r"\scriptstyle",
        r"\boxed",
        r"\mathstrut",
        r"\nonumber",
    ]
)
FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "lg",
        "exp",
        "lim",
        "limsup",
        "liminf",
        "max",
        "min",
        "sup",
        "inf",
        "arg",
        "argmax",
        "argmin",
        "det",
        "dim",
        "ker",
        "deg",
        "gcd",
        "hom",
        "Pr",
        "mod",
        "softmax",
        "sign",
        "rank",
        "tr",
        "diag",
    ]
)
UPRIGHT = frozenset(
    [
        r"\text",
        r"\textrm",
        r"\textnormal",
        r"\mathrm",
        r"\mathit",
        r"\operatorname",
        r"\operatorname*",
        r"\mathsf",
        r"\mbox",
        r"\mathop",
        r"\mathnormal",
        r"\mathtt",
        r"\texttt",
    ]
)
ALPHABETS = frozenset(
    [
        r"\mathbb",
        r"\mathcal",
        r"\mathfrak",
        r"\mathbf",
        r"\mathscr",
        r"\boldsymbol",
        r"\bm",
        r"\textbf",
    ]
)
LITERAL = {rf"\{char}": char for char in "{}%$#_&"} | {r"\|": "‖", "'": "′", "-": "−", "*": "∗"}
MORE = {
    r"\dots": "…", r"\ldots": "…", r"\lVert": "‖", r"\rVert": "‖", r"\lt": "<", r"\gt": ">", r"\bmod": " mod ",
    r"\lvert": "|", r"\rvert": "|", r"\colon": ":", r"\implies": "⟹", r"\iff": "⟺", r"\tfrac": "", r"\lbrace": "{",
    r"\rbrace": "}", r"\lbrack": "[", r"\rbrack": "]", r"\backslash": "\\",
}  # fmt: skip
CLOSE = frozenset(["", " ", *"∂∇¬√"])
"""Behind these no space is wanted."""

ENDS = frozenset(["", *"+-=,.)]}<>|;:&", r"\right", r"\\", r"\bigr", r"\Bigr"])
"""What cannot be read as part of a denominator that stands before it."""

ODD = frozenset("V.<>*∫")
"""Scripts of unicodeit's that are other characters which look alike."""
