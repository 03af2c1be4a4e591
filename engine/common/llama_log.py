"""llama.cpp's log.

It is one for the whole process, so every binding of libllama sets the one callback that stands here.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from typing import Any

_WARNING, _ERROR = 3, 4
_Callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_errors: deque[str] = deque(maxlen=20)
_shown = False


def _take(level: int, text: bytes | None, data: object) -> None:
    if level not in (_WARNING, _ERROR) or not text:
        return
    line = text.decode("utf-8", "replace")
    if level == _ERROR:
        _errors.append(line.strip())
    if _shown:
        sys.stderr.write(line)


_CALLBACK = _Callback(_take)


def capture_log(library: Any, shown: bool = False) -> None:
    """Keep what `library` complains about from now on, printing nothing; `shown`: on standard error too."""
    global _shown
    _shown = shown
    clear_errors()
    library.llama_log_set(_CALLBACK, ctypes.c_void_p(0))


def clear_errors() -> None:
    """Forget what was complained about so far."""
    _errors.clear()


def logged_errors() -> list[str]:
    """The last errors since they were cleared."""
    return list(_errors)
