"""Typed errors of the application: wrong usage, and files that it cannot read or write.

The engine's errors are in `engine.errors`.
"""

from __future__ import annotations

import errno
import sqlite3

from engine.common.os_errors import REASONS, os_reason
from engine.errors import KtchatError
from ktchat.common.text import one_line


def shown_error(error: KtchatError) -> KtchatError:
    """The same error with words that are safe to draw; it may quote a model or a file name."""
    return type(error)(*(one_line(text, 400) for text in (error.what, error.why, error.todo)))


class StoreError(KtchatError):
    """The saved sessions cannot be read or written; the chat goes on in memory."""


class StoreVersionError(StoreError):
    """The saved sessions were written by a newer version."""


class SessionBusyError(KtchatError):
    """The session is open in another ktchat and can only be read here."""


class SessionFileError(KtchatError):
    """A file that was to be imported holds no session that can be read."""


class AttachmentError(KtchatError):
    """A file or folder that cannot go with a message."""


class UnknownSessionError(KtchatError):
    """No saved session, or more than one, answers to that name."""


class SettingsError(KtchatError):
    """The settings cannot be written, or a value in them is not possible."""


class FolderError(KtchatError):
    """There is no folder for the program's files."""


class UsageError(KtchatError):
    """The command line asks for something impossible; exit code 2."""


_SQLITE_REASONS = {
    sqlite3.SQLITE_FULL: REASONS[errno.ENOSPC],
    sqlite3.SQLITE_READONLY: REASONS[errno.EROFS],
    sqlite3.SQLITE_CANTOPEN: ("the file cannot be opened", REASONS[errno.EROFS][1]),
    sqlite3.SQLITE_PERM: REASONS[errno.EACCES],
    sqlite3.SQLITE_IOERR: REASONS[errno.EIO],
    sqlite3.SQLITE_BUSY: ("another program holds the file", "Close the other program"),
    sqlite3.SQLITE_LOCKED: ("another program holds the file", "Close the other program"),
    sqlite3.SQLITE_TOOBIG: ("a text is too long for it", "Start a new session"),
}


def reason_of(error: OSError | sqlite3.Error | UnicodeDecodeError) -> tuple[str, str]:
    """Why a file operation failed and what to do about it, in words."""
    if isinstance(error, OSError):
        return os_reason(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return _SQLITE_REASONS.get(code) or (str(error), "")
