"""The model hub: search, what a repository holds, and reading parts of a file before a download.

The hub is Hugging Face's, through huggingface-hub, which is imported at the first request. All calls
block; `ask` runs one in a thread for the application's event loop. HF_TOKEN, HF_ENDPOINT and
HF_HUB_OFFLINE are honoured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.hub.access import (
    DEFAULT_ENDPOINT,
    HubAccess,
    RetryableError,
    failure,
    network_error,
    opened,
)
from engine.hub.answers import SHA1, Repository, SearchHit, file_of, hit_of, licence_of
from engine.hub.errors import HubOfflineError, HubServerError, TokenUnaskedError
from engine.hub.names import (
    HUB_HOSTS,
    HubFile,
    HubModel,
    ModelRef,
    choose,
    group_models,
    is_repo,
    parse_ref,
)
from engine.hub.remote_file import RemoteFile

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

    from engine.spec.spec import ModelSpec

TIMEOUT = 20.0
"""Seconds without a byte after which a request is given up."""
MAX_RESULTS = 100
MAX_FILES = 20_000


def unasked(endpoint: str) -> bool | None:
    """What a person said who was not asked: nothing."""
    return None


def access_from_environment(says: Callable[[str], bool | None] = unasked) -> HubAccess:
    """Endpoint, token and offline mode as the environment and the hub's token file say.

    `says` is asked whether the token may go to an endpoint that is not the hub's: yes, no (nothing is sent
    then), or None for a person who was not asked yet, which raises `TokenUnaskedError`.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or DEFAULT_ENDPOINT
    offline = os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")
    access = HubAccess(endpoint, None if offline else _token(), offline)
    answer = says(endpoint) if access.asks else True
    if answer is None:
        (host,) = access.hosts
        raise TokenUnaskedError(
            f"Your token for the hub would go to {host}",
            "HF_ENDPOINT names it, and it is not the hub",
            "Say --send-token if it may, --no-send-token if not; on the screen the model manager asks",
        )
    return access if answer else dataclasses.replace(access, token=None)


def _token() -> str | None:
    """The token, from HF_TOKEN or from the file that `hf auth login` writes."""
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").strip():
        return None
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        _import_hub()
        from huggingface_hub import get_token

        with contextlib.suppress(OSError, ValueError):
            token = (get_token() or "").strip()
    return token if token and token.isascii() and token.isprintable() else None


class Hub:
    """The hub at one endpoint. Thread-safe; every call blocks for at most some `TIMEOUT`s."""

    def __init__(
        self, access: HubAccess | None = None, says: Callable[[str], bool | None] = unasked
    ) -> None:
        """`access`, or what the environment says; `says`: whether a token may go to a mirror."""
        self._given = access
        self._says = says
        self._lock = threading.Lock()
        self._http: httpx2.Client | None = None

    @property
    def access(self) -> HubAccess:
        """How the hub is reached; read from the environment at first use. Raises `HubError`."""
        with self._lock:
            if self._given is None:
                self._given = access_from_environment(self._says)
            return self._given

    def search(self, query: str, limit: int = 20) -> list[SearchHit]:
        """Repositories with GGUF files, the most downloaded first. Raises `HubError`."""
        api = self._api()
        with self._errors(query):
            found = api.list_models(
                search=query[:200],
                filter="gguf",
                sort="downloads",
                limit=max(1, min(limit, MAX_RESULTS)),
                expand=["downloads", "likes", "lastModified", "gated", "gguf"],
            )
            return [hit_of(info) for info in found if is_repo(str(info.id))]

    def repository(self, repo: str, revision: str = "main") -> Repository:
        """What a repository holds at the commit that `revision` names now. Raises `HubError`."""
        api = self._api()
        with self._errors(repo):
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
            commit = str(info.sha or "")
            if not SHA1.fullmatch(commit):
                raise HubServerError("The hub names no commit", repo, "Try again later")
            files = [
                file
                for sibling in (info.siblings or [])[:MAX_FILES]
                if (file := file_of(repo, commit, sibling)) is not None
            ]
            hit = hit_of(info)
            return Repository(
                repo=repo,
                commit=commit,
                gated=hit.gated,
                licence=licence_of(info),
                downloads=hit.downloads,
                likes=hit.likes,
                updated=hit.updated,
                architecture=hit.architecture,
                context=hit.context,
                models=tuple(group_models(files)),
            )

    def find(
        self, spec: str | ModelRef, fits: Callable[[HubModel], bool] = lambda _: True
    ) -> HubModel:
        """The model that a person names; without a quantisation the best one that `fits`.

        Raises `NoModelError` with the choices, or another `HubError`.
        """
        ref = self.ref(spec) if isinstance(spec, str) else spec
        return choose(self.repository(ref.repo, ref.revision).models, ref, fits)

    def ref(self, spec: str) -> ModelRef:
        """`spec` taken apart; addresses at the hub and at the endpoint are understood."""
        return parse_ref(spec, HUB_HOSTS | self.access.hosts)

    def open(self, file: HubFile) -> RemoteFile:
        """A file on the hub, read in parts."""
        import httpx2

        self._check_offline()
        access = self.access
        with self._lock:
            if self._http is None:
                self._http = opened(lambda: httpx2.Client(timeout=TIMEOUT))
        return RemoteFile(self._http, access, file)

    def spec(self, model: HubModel) -> ModelSpec:
        """What a model is, from the headers of its files: some MB are read, nothing is kept.

        Raises `HubError`, `ModelFileError`, `UnsupportedModelError`.
        """
        from engine.spec.remote import RemotePart, spec_from_parts

        remotes = [self.open(file) for file in model.files]
        named = zip(model.files, remotes, strict=True)
        return spec_from_parts([RemotePart(file.name, r.size, r.read) for file, r in named])

    def _check_offline(self) -> None:
        if self.access.offline:
            raise HubOfflineError(
                "The hub is not asked", "HF_HUB_OFFLINE is set", "Unset it to search and download"
            )

    def _api(self) -> HfApi:
        self._check_offline()
        _import_hub()
        from huggingface_hub import HfApi

        # The application's rule for tokens holds for the library too: none over clear networks.
        endpoint = self.access.endpoint
        token = self.access.token if self.access.headers(endpoint) else None
        return HfApi(endpoint=endpoint, token=token or False)

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Turn the library's errors into ours; its words may hold addresses and are not kept."""
        import httpx2
        from huggingface_hub import errors

        try:
            yield
        except errors.HfHubHTTPError as error:
            answer = error.response
            if isinstance(error, errors.GatedRepoError):
                answer.headers["x-error-code"] = "GatedRepo"
            refusal = failure(self.access, name, answer.status_code, answer.headers)
            raise (refusal.error if isinstance(refusal, RetryableError) else refusal) from None
        except errors.OfflineModeIsEnabled:
            raise HubOfflineError("The hub is not asked", "HF_HUB_OFFLINE is set") from None
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise network_error(error) from None
        except httpx2.HTTPError:
            raise HubServerError("The hub's answer makes no sense", "", "Try again later") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise HubServerError("The hub's answer makes no sense", "", "Try again later") from None


_IMPORT = threading.Lock()
_imported = False


def _import_hub() -> None:
    """Import huggingface-hub: quiet, without telemetry, and with time limits."""
    global _imported
    with _IMPORT:
        if _imported:
            return
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import set_client_factory
        from huggingface_hub.utils.logging import set_verbosity

        from engine.hub.bounded_client import bounded_client

        set_client_factory(bounded_client)
        set_verbosity(logging.CRITICAL)  # it would write on the screen
        _imported = True


__all__ = [
    "Hub",
    "HubAccess",
    "HubFile",
    "HubModel",
    "RemoteFile",
    "Repository",
    "SearchHit",
    "access_from_environment",
    "ask",
]
