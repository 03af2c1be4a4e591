"""Typed errors of the model hub and of downloads; each says what to do next.

No error holds a token or the signature of an address.
"""

from __future__ import annotations

from engine.errors import KtchatError


class HubError(KtchatError):
    """A request to the model hub that failed."""


class HubOfflineError(HubError):
    """HF_HUB_OFFLINE forbids to ask the hub."""


class HubNetworkError(HubError):
    """The hub cannot be reached, or the connection broke too often."""


class HubServerError(HubError):
    """The hub answered with a failure of its own or with nonsense."""


class RateLimitError(HubError):
    """Too many requests; the hub wants a pause."""


class HubMissingError(HubError):
    """No such repository, revision or file, or a private one."""


class GatedModelError(HubError):
    """The licence of the model must be accepted first, or access be granted."""


class HubTokenError(HubError):
    """The hub does not accept the token."""


class TokenUnaskedError(HubError):
    """The token would go to an endpoint that is not the hub's, and nobody has said whether it may."""


class NoModelError(HubError):
    """The repository has no GGUF model, or none that answers to the name."""


class UnsafeNameError(HubError):
    """A file name from outside that could leave the models folder or surprise a system."""


class DownloadError(KtchatError):
    """A download that stopped; what came is kept unless the words say otherwise."""


class DiskShortError(DownloadError):
    """Not enough space for the model."""


class DownloadBusyError(DownloadError):
    """Another ktchat downloads the same model."""


class FileChangedError(DownloadError):
    """The file on the hub is not the one that the download began with."""


class DamagedDownloadError(DownloadError):
    """The server's bytes do not match the checksum; nothing of them is kept."""


class DamagedModelError(DownloadError):
    """A model on disk that does not match its checksum any more."""
