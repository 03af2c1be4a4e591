"""An engine process for tests: `python -m tests.support.fake_worker MODE <socket>`.

MODE `scripted` is the real worker around the scripted model of `fake_runtime`; a path that ends in
"missing" fails to load. The others misbehave: see `MODES`.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Callable

from engine.errors import ModelFileError
from engine.protocol import (
    Figures,
    Finished,
    Load,
    Loaded,
    Notice,
    Progress,
)
from engine.wire import encode
from engine.worker import serve
from tests.support.fake_runtime import fake_model


def open_model(load, cancelled, emit):
    """The scripted model; its progress comes in four steps."""
    if load.path.endswith("missing"):
        raise ModelFileError(f"{load.path} does not exist")
    for step in range(5):
        emit(Progress("load", step, 4))
        if load.path.endswith("slow"):
            time.sleep(0.05)
    emit(Notice("This is a fake"))
    return fake_model(context=load.context or 4096)


LOADED = Loaded("x", "x", "x", "x", "x", 8, 0, 0, 0.0)


def garbage(connection: socket.socket) -> None:
    connection.sendall(struct.pack(">I", 12) + b"not json, no")


def wrong_type(connection: socket.socket) -> None:
    body = b'["Progress", {"stage": "load", "done": "many", "total": 1}]'
    connection.sendall(struct.pack(">I", len(body)) + body)


def oversized(connection: socket.socket) -> None:
    connection.sendall(struct.pack(">I", 0xFFFFFFFF))


def command(connection: socket.socket) -> None:
    connection.sendall(encode(Load("x")))


def flood(connection: socket.socket) -> None:
    frame = encode(Notice("x"))
    while True:
        connection.sendall(frame * 1000)


def fat(connection: socket.socket) -> None:
    frame = encode(Notice("x" * (1 << 20)))
    while True:
        connection.sendall(frame)


def unasked(connection: socket.socket) -> None:
    connection.sendall(encode(LOADED))
    connection.sendall(encode(Finished("stop", Figures())))


def chatter(connection: socket.socket) -> None:
    while True:
        os.write(2, b"x" * 65536)


def hang_up(connection: socket.socket) -> None:
    connection.close()


def silent(connection: socket.socket) -> None:
    pass


MODES: dict[str, Callable[[socket.socket], None]] = {
    mode.__name__: mode
    for mode in (
        *(garbage, wrong_type, oversized, command, flood, fat, unasked, chatter, hang_up),
        silent,
    )
}

if __name__ == "__main__":
    mode, descriptor = sys.argv[1], int(sys.argv[2])
    if mode == "scripted":
        serve(descriptor, open_model)
    connection = socket.socket(fileno=descriptor)
    connection.recv(1 << 16)
    MODES[mode](connection)
    time.sleep(600)
