"""Triton's interpreter without the work that it repeats: what it computes stays, bit for bit.

It replaces every function of the language before each call of a device function, thousands of times in one launch,
although the launch has replaced them already; and it builds its table of types at each look. Both took more than a
third of the time of these tests (Triton 3.7).
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any


def repeat_less() -> None:
    """Change the interpreter if a test has loaded it; a second time nothing is left to change."""
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or hasattr(interpreter._patch_lang, "always"):
        return
    language = interpreter.tl
    replace, find_type = interpreter._patch_lang, interpreter._get_np_dtype

    def replaced(lang: Any) -> bool:
        members = lang.load, lang.tensor.__add__
        return not any(language.core.is_builtin(member) for member in members)

    def replace_once(function: Any) -> Any:
        langs = [
            value
            for value in function.__globals__.values()
            if value is language or value is language.core
        ]
        if langs and all(map(replaced, langs)):
            return interpreter._LangPatchScope()  # nothing to take back
        return replace(function)

    replace_once.always = replace  # type: ignore[attr-defined]
    interpreter._patch_lang = replace_once

    by_scalar = lru_cache(find_type)

    def type_of_arrays(of: Any) -> Any:
        if isinstance(of, language.block_type):  # has no hash
            of = of.element_ty
        return by_scalar(of) if type(of) is language.dtype else find_type(of)

    interpreter._get_np_dtype = type_of_arrays
