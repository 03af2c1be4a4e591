"""A model hub on this machine, and the file server that it redirects to, with faults on demand.

Serves the part of Hugging Face's interface that the program uses: search, repositories with blobs,
resolve with redirects to signed addresses on another host, ranges, ETags. Every request is noted.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.clock import PATIENCE

PIECE = 64 << 10


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match."""

    kind: str
    """status | drop | ignore-range | flip | slow | stall | weak-range; of the hub's answers: endless | bomb |
    trickle"""
    times: int = 1
    where: str = "cdn"
    """hub | cdn"""
    path: str = ""
    """A part of the file's path."""
    value: int = 0
    """The status; bytes before the drop or the stall; offset of the flipped bit; bytes a second."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Repo:
    """A repository: its files at one commit."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    gated: bool = False
    members: tuple[str, ...] = ()
    """Tokens that may read it when it is gated."""
    plain: bool = False
    """Files are not in LFS: no sha256, only git's name."""
    listed: dict[str, str] = field(default_factory=dict)
    """sha256 that is listed for a path instead of the true one."""
    downloads: int = 10


@dataclass(frozen=True)
class Request:
    """A request that came."""

    where: str
    method: str
    path: str
    token: str
    range: str
    if_range: str


class HubServer:
    """Two servers in threads; `endpoint` is the hub's address."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.bodies = 0
        """Bytes of files that were sent."""
        self.signature = 1
        """Signed addresses with another number have expired."""
        self.etag = "v1"
        self.redirects = True
        self.cdn_host = "localhost"
        self.rate = 0
        """Bytes a second of every connection; 0: as fast as it goes."""
        self._most: int | None = None
        self._begun = 0
        self.tokens: tuple[str, ...] = ("hf_good",)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._sending = 0
        self._servers = [self._serve("hub"), self._serve("cdn")]
        self.endpoint = f"http://127.0.0.1:{self._servers[0].server_address[1]}"
        self.cdn_port = self._servers[1].server_address[1]

    def _serve(self, where: str) -> ThreadingHTTPServer:
        hub = self

        class Handler(_Handler):
            def __init__(self, *args: Any) -> None:
                self.hub, self.where = hub, where
                super().__init__(*args)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients that go away are what is tested

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fault(self, kind: str, **options: Any) -> None:
        """Let something go wrong."""
        self.faults.append(Fault(kind, **options))

    def take_fault(self, where: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                matches = fault.where == where and fault.path in path and fault.kind != "flip"
                if matches and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def take_flips(self, start: int, end: int) -> list[int]:
        """Offsets from `start` to `end` where a bit flips this time."""
        flips = []
        with self._lock:
            for fault in self.faults:
                if fault.kind == "flip" and start <= fault.value < end and fault.times > 0:
                    fault.times -= 1
                    flips.append(fault.value)
        return flips

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def sent(self, count: int) -> None:
        with self._lock:
            self.bodies += count

    def hold(self, count: int) -> None:
        """Send so many bytes of files from now on and no more until `go_on()`: a download is under way."""
        with self._idle:
            self._most = self._begun + count

    def go_on(self) -> None:
        """Send as fast as it goes from now on, what is held too."""
        with self._idle:
            self._most, self.rate = None, 0
            self._idle.notify_all()

    def may_send(self, count: int, client: socket.socket) -> bool:
        """Wait until so many bytes more may be sent; False when the client is gone."""
        with self._idle:
            while self._most is not None and self._begun + count > self._most:
                self._idle.wait(0.02)
                if _is_gone(client):
                    return False
            self._begun += count
            return True

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around a body that is sent."""
        with self._lock:
            self._sending += 1
        try:
            yield
        finally:
            with self._idle:
                self._sending -= 1
                self._idle.notify_all()

    def settled(self, seconds: float = PATIENCE) -> int:
        """`bodies` when nothing is being sent any more: a killed client is noticed a moment later."""
        with self._idle:
            assert self._idle.wait_for(lambda: self._sending == 0, seconds), "still sending"
            return self.bodies


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A hub for one test."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def _is_gone(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    where: str

    def setup(self) -> None:
        # What is sent is about what is read: the system holds little of it in between.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        super().setup()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        ranges = self.headers.get("Range", "")
        if_range = self.headers.get("If-Range", "")
        self.hub.note(Request(self.where, self.command, path, token, ranges, if_range))
        fault = self.hub.take_fault(self.where, path)
        if fault is not None and fault.kind == "status":
            self._send(fault.value, b"no", fault.headers)
        elif fault is not None and fault.kind in ("endless", "bomb", "trickle"):
            self._without_end(fault.kind)
        elif self.where == "cdn":
            self._from_cdn(path, parse_qs(url.query), fault)
        elif path == "/api/models":
            self._search(parse_qs(url.query))
        elif path.startswith("/api/models/"):
            self._repository(path.removeprefix("/api/models/"), token)
        else:
            self._resolve(path, token, fault)

    def _without_end(self, kind: str) -> None:
        """An answer that nobody should read to its end."""
        pieces = {
            "endless": (b"[" + b" " * PIECE, 0.0),
            "bomb": (gzip.compress(bytes(80 << 20), 1), 0.0),
            "trickle": (b" ", 0.1),
        }
        piece, pause = pieces[kind]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if kind == "bomb":
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(piece)
            while kind != "bomb":
                time.sleep(pause)
                self.wfile.write(piece)

    # The hub

    def _search(self, query: dict[str, list[str]]) -> None:
        words = query.get("search", [""])[0].lower()
        found = [
            self._summary(name, repo)
            for name, repo in self.hub.repos.items()
            if words in name.lower() and any(path.endswith(".gguf") for path in repo.files)
        ]
        found.sort(key=lambda item: -item["downloads"])
        self._send_json(found[: int(query.get("limit", ["100"])[0])])

    def _summary(self, name: str, repo: Repo) -> dict[str, Any]:
        return {
            "_id": "0",
            "id": name,
            "modelId": name,
            "sha": repo.commit,
            "gated": "manual" if repo.gated else False,
            "private": False,
            "downloads": repo.downloads,
            "likes": 3,
            "lastModified": "2026-05-01T10:00:00.000Z",
            "tags": ["gguf", "license:apache-2.0"],
            "gguf": {"total": 1, "architecture": "qwen3moe", "context_length": 4096},
        }

    def _repository(self, rest: str, token: str) -> None:
        match = re.fullmatch(r"([^/]+/[^/]+)(?:/revision/(.+))?", rest)
        if match is None or match[1] not in self.hub.repos:
            self._refuse(404 if token in self.hub.tokens else 401, "RepoNotFound")
            return
        if token and token not in self.hub.tokens:
            headers = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self._send(401, b"{}", headers)
            return
        repo = self.hub.repos[match[1]]
        if match[2] not in (None, "main", repo.commit):
            self._refuse(404, "RevisionNotFound")
            return
        siblings = [self._sibling(repo, path, data) for path, data in repo.files.items()]
        self._send_json({**self._summary(match[1], repo), "siblings": siblings})

    def _sibling(self, repo: Repo, path: str, data: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": blob}
        if not repo.plain:
            sha256 = repo.listed.get(path) or hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
        return entry

    def _resolve(self, path: str, token: str, fault: Fault | None) -> None:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo = self.hub.repos.get(match[1]) if match else None
        if match is None or repo is None:
            self._refuse(404, "RepoNotFound")
        elif match[2] not in ("main", repo.commit):
            self._refuse(404, "RevisionNotFound")
        elif match[3] not in repo.files:
            self._refuse(404, "EntryNotFound")
        elif repo.gated and token not in repo.members:
            self._refuse(403 if token else 401, "GatedRepo")
        else:
            self._hand_over(match[1], repo, match[3], fault)

    def _hand_over(self, name: str, repo: Repo, path: str, fault: Fault | None) -> None:
        data = repo.files[path]
        headers = {"X-Repo-Commit": repo.commit, "X-Linked-Size": str(len(data))}
        if not repo.plain:
            sha256 = repo.listed.get(path) or hashlib.sha256(data).hexdigest()
            headers["X-Linked-ETag"] = f'"{sha256}"'
        if not self.hub.redirects:
            self._body(path, data, headers, fault)
            return
        signed = f"/{name}/{path}?sig={self.hub.signature}"
        headers["Location"] = f"http://{self.hub.cdn_host}:{self.hub.cdn_port}{signed}"
        self._send(302, b"", headers)

    # The file server

    def _from_cdn(self, path: str, query: dict[str, list[str]], fault: Fault | None) -> None:
        if query.get("sig", [""])[0] != str(self.hub.signature):
            self._send(403, b"expired")
            return
        _, owner, name, rest = path.split("/", 3)
        self._body(rest, self.hub.repos[f"{owner}/{name}"].files[rest], {}, fault)

    def _body(self, path: str, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        etag = f'"{self.hub.etag}"'
        start, end, status = 0, len(data), 200
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", etag) == etag
        if match and same and kind != "ignore-range":
            start = int(match[1])
            end = min(len(data), int(match[2] or len(data)) + 1)
            if start >= end:
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            shown = start + 1 if kind == "weak-range" else start
            headers = {**headers, "Content-Range": f"bytes {shown}-{end - 1}/{len(data)}"}
        self.send_response(status)
        for name, value in {"ETag": etag, "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "GET":
            with self.hub.sending():
                self._send_body(data, start, end, fault)

    def _send_body(self, data: bytes, start: int, end: int, fault: Fault | None) -> None:
        kind, value = (fault.kind, fault.value) if fault else ("", 0)
        rate = value if kind == "slow" else self.hub.rate
        at = start
        while at < end:
            stop = min(end, at + PIECE)
            if kind in ("drop", "stall"):
                stop = min(stop, start + value)
            if not self.hub.may_send(stop - at, self.request):
                self.close_connection = True
                return
            piece = bytearray(data[at:stop])
            for offset in self.hub.take_flips(at, stop):
                piece[offset - at] ^= 1
            self.wfile.write(piece)
            self.hub.sent(len(piece))
            at = stop
            if kind in ("drop", "stall") and at >= start + value:
                end = time.monotonic() + PATIENCE
                while kind == "stall" and not _is_gone(self.request) and time.monotonic() < end:
                    time.sleep(0.02)
                self.close_connection = True
                return
            if rate:
                time.sleep(len(piece) / rate)

    # Words

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "refused"})

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
