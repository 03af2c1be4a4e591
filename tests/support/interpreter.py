"""Triton's interpreter without the work that it repeats: what it computes stays, bit for bit.

It replaces every function of the language before each call of a device function, thousands of times in one launch,
although the launch has replaced them already; and it works out the same types at each operation of a kernel. Both
took more than half of the time of these tests (Triton 3.7).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any


def repeat_less() -> None:
    """Change the interpreter if a test has loaded it; a second time nothing is left to change."""
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or hasattr(interpreter, "repeats_less"):
        return
    interpreter.repeats_less = True
    core = interpreter.tl.core
    interpreter._patch_lang = _replacing_once(interpreter, interpreter._patch_lang)
    interpreter._get_np_dtype = _remembering_arrays(core, interpreter._get_np_dtype)
    core.block_type.__init__ = _remembering_shapes(core, core.block_type.__init__)
    core.tensor.__init__ = _remembering_sizes(core, core.tensor.__init__)


def _replacing_once(interpreter: Any, replace: Callable[[Any], Any]) -> Callable[[Any], Any]:
    language = interpreter.tl

    def replaced(lang: Any) -> bool:
        members = lang.load, lang.tensor.__add__
        return not any(language.core.is_builtin(member) for member in members)

    def replace_once(function: Any) -> Any:
        found = function.__globals__.values()
        langs = [value for value in found if value is language or value is language.core]
        if langs and all(map(replaced, langs)):
            return interpreter._LangPatchScope()  # nothing to take back
        return replace(function)

    return replace_once


def _remembering_arrays(core: Any, find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    remembered = cache(find)

    def type_of_arrays(of: Any) -> Any:
        if isinstance(of, core.block_type):  # has no hash
            of = of.element_ty
        return remembered(of) if type(of) is core.dtype else find(of)

    return type_of_arrays


def _remembering_shapes(core: Any, init: Callable[..., None]) -> Callable[..., None]:
    known: dict[Any, dict[str, Any]] = {}

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = [s.value if type(s) is core.constexpr else s for s in shape]
        key = (element_ty.name, *sizes, *map(type, sizes))  # 1.0 is refused, and equal to 1
        if (kept := known.get(key)) is None or kept["element_ty"] != element_ty:
            init(self, element_ty, shape)
            known[key] = dict(vars(self))
        else:
            vars(self).update(kept)

    return block_type


def _remembering_sizes(core: Any, init: Callable[..., None]) -> Callable[..., None]:
    known: dict[Any, tuple[Any, Any]] = {}

    def tensor(self: Any, handle: Any, kind: Any) -> None:
        key = tuple(kind.shape.values) if kind.is_block() else ()
        if (kept := known.get(key)) is None:
            init(self, handle, kind)
            known[key] = self.numel, self.shape
        else:
            self.handle, self.type, self.dtype = handle, kind, kind.scalar
            self.numel, self.shape = kept

    return tensor
