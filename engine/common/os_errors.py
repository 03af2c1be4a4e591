"""Why a file operation failed and what to do about it, in words."""

from __future__ import annotations

import errno

Reason = tuple[str, str]
"""Why, and what to do next."""

_ELSEWHERE = "Set KTCHAT_HOME to a folder you can write to"
_MORE_FILES = "Allow more of them: ulimit -n 1024"
REASONS: dict[int, Reason] = {
    errno.ENOSPC: ("the disk is full", "Free some space"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space"),
    errno.EFBIG: (
        "the file may not grow further",
        "Raise the limit on file sizes, or use another disk",
    ),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.EACCES: ("permission was denied", _ELSEWHERE),
    errno.EPERM: ("permission was denied", _ELSEWHERE),
    errno.ENOTDIR: ("part of its path is a file", _ELSEWHERE),
    errno.EEXIST: ("part of its path is a file", _ELSEWHERE),
    errno.EISDIR: ("it is a folder", "Move that folder away"),
    errno.ELOOP: ("there is a link in its place", "Move the link away"),
    errno.ENOENT: ("its folder is missing", _ELSEWHERE),
    errno.EMFILE: ("too many files are open", _MORE_FILES),
    errno.ENFILE: ("too many files are open", _MORE_FILES),
    errno.EIO: ("the disk reports an error", "Check the disk"),
}
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


def os_reason(error: OSError) -> Reason:
    """Why, and what to do next; empty where only the system's own words are known."""
    return REASONS.get(error.errno or 0) or (error.strerror or str(error), "")
