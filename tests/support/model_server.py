"""A server of models on this machine that says what a test wrote down, with faults on demand.

It speaks HTTP by hand, so that it can also speak it wrongly. Every request is noted.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.clock import PATIENCE

DONE = "[DONE]"


def delta(**fields: Any) -> dict[str, Any]:
    """One chunk of a reply: `delta(content="Hel")`."""
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def finish(reason: str = "stop") -> dict[str, Any]:
    """The chunk that says why the reply ended."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def usage(prompt: int, reply: int, cached: int = 0, thought: int = 0) -> dict[str, Any]:
    """The last chunk, with what was counted."""
    details = {
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    return {
        "choices": [],
        "usage": {"prompt_tokens": prompt, "completion_tokens": reply, **details},
    }


def events(*chunks: dict[str, Any] | str) -> bytes:
    """Chunks as the stream has them."""
    texts = (chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks)
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def said(*words: str) -> list[bytes]:
    """The pieces of a whole reply."""
    pieces = [events(delta(content=word)) for word in words]
    return [*pieces, events(finish()), events(usage(7, len(words))), events(DONE)]


@dataclass
class Answer:
    """What one request gets. The pieces of the body are sent one by one, each as a chunk of its own."""

    pieces: Sequence[bytes] = ()
    status: int = 200
    kind: str = "text/event-stream; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    version: str = "HTTP/1.1"
    """HTTP/1.0: no chunks, the connection's end is the body's."""
    cut: bool = False
    """The connection ends in the middle of a chunk."""
    endless: bool = False
    """The last piece comes again and again."""
    hold: int | None = None
    """Before the piece after so many, wait for `go_on` or for the client to leave."""
    packed: bool = False
    """The body is one gzip, piece by piece."""
    bare: bytes | None = None
    """Sent instead of everything."""
    close: bool = False
    """The connection is closed after it, without a word of that."""


def refusal(status: int, message: str, **headers: str) -> Answer:
    """What a server says when it does not answer."""
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
    return Answer([body], status, "application/json", headers)


@dataclass(frozen=True)
class Request:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int
    """Which of the connections it came on."""


class ModelServer:
    """`answers` are taken one by one by requests for a reply; `pages` answer the rest by path."""

    def __init__(self, port: int = 0) -> None:
        self.answers: list[Answer] = []
        self.pages: dict[str, Answer | Any] = {}
        self.requests: list[Request] = []
        self.left = 0
        """Clients that went away in the middle of a reply."""
        self.connections = 0
        self._clients: list[socket.socket] = []
        self._going = threading.Event()
        self._lock = threading.Condition()
        self.serves("tiny", owned_by="vllm", max_model_len=4096)
        server = self

        class Handler(_Handler):
            def __init__(self, *args: Any) -> None:
                self.models = server
                super().__init__(*args)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients that go away are what is tested

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def serves(self, *names: str, **fields: Any) -> None:
        """List these models."""
        entries = [{"id": name, "object": "model", **fields} for name in names]
        self.pages["/v1/models"] = {"object": "list", "data": entries}

    def says(self, *words: str) -> None:
        """The next reply."""
        self.answers.append(Answer(said(*words)))

    @property
    def replies(self) -> list[Request]:
        """The requests for a reply."""
        return [request for request in self.requests if request.path.endswith("/chat/completions")]

    def go_on(self) -> None:
        """Let what is held go on."""
        self._going.set()

    def close(self) -> None:
        """Away, with every connection."""
        self._going.set()
        self._server.shutdown()
        self._server.server_close()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    # For the handler.

    def take(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            path = request.path.partition("?")[0]
            if path.endswith("/chat/completions"):
                return self.answers.pop(0) if self.answers else Answer(said("Hello", " there", "."))
        page = self.pages.get(path)
        if page is None:
            return refusal(404, "Not Found")
        if isinstance(page, Answer):
            return page
        return Answer([json.dumps(page).encode()], kind="application/json")

    def connected(self, client: socket.socket) -> int:
        with self._lock:
            self._clients.append(client)
            self.connections += 1
            return self.connections

    def went_away(self) -> None:
        with self._lock:
            self.left += 1
            self._lock.notify_all()

    def wait_for_leaving(self) -> bool:
        """Whether a client left, within the patience of the tests."""
        with self._lock:
            return self._lock.wait_for(lambda: self.left > 0, PATIENCE)

    def waits(self, client: socket.socket) -> bool:
        """Wait until it goes on; False when the client is gone."""
        while not self._going.wait(0.01):
            if _is_gone(client):
                return False
        return True


@contextmanager
def model_server(port: int = 0) -> Iterator[ModelServer]:
    """A server for one test."""
    server = ModelServer(port)
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
    models: ModelServer

    def setup(self) -> None:
        super().setup()
        self.number = self.models.connected(self.connection)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        body = json.loads(data) if data else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.models.take(Request(self.command, self.path, headers, body, self.number))
        if answer.bare is not None:
            self.wfile.write(answer.bare)
            self.close_connection = True
            return
        try:
            self._send(answer)
        except OSError:
            self.models.went_away()
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        old = answer.version == "HTTP/1.0"
        lines = [f"{answer.version} {answer.status} Word", f"Content-Type: {answer.kind}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in answer.headers.items()]
        lines += ["Content-Encoding: gzip"] if answer.packed else []
        lines += [] if old else ["Transfer-Encoding: chunked"]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode())
        pack = gzip_pieces(answer.pieces) if answer.packed else iter(answer.pieces)
        for number, piece in enumerate(pack):
            if number == answer.hold and not self.models.waits(self.connection):
                self.models.went_away()
                self.close_connection = True
                return
            self._piece(piece, old)
        while answer.endless:
            self._piece(answer.pieces[-1], old)
        if answer.cut:
            with suppress(OSError):
                self.wfile.write(b"400\r\ndata: {")
        elif not old:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = old or answer.cut or answer.close

    def _piece(self, piece: bytes, old: bool) -> None:
        self.wfile.write(piece if old else b"%x\r\n%s\r\n" % (len(piece), piece))


def gzip_pieces(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """The pieces of one gzip, each with what can be unpacked of it."""
    import zlib

    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def bomb(size: int) -> bytes:
    """So many bytes as a small gzip."""
    return gzip.compress(bytes(size), 9)
