"""llama-cpp-python's own server on this machine: `python -m tests.support.llama_server MODEL PORT [SETTINGS]`.

It prints its port once it listens; port 0: any that is free. SETTINGS are those of the server, as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.clock import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


class LlamaServer:
    """The server as a child process."""

    def __init__(self, model: Path, port: int = 0, **settings: Any) -> None:
        command = [sys.executable, "-m", "tests.support.llama_server", str(model), str(port)]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("KTCHAT_")},
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = subprocess.Popen(
            [*command, json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=ROOT,
            text=True,
        )
        assert self._process.stdout is not None
        line = ""
        for line in self._process.stdout:
            if line.startswith("listening "):
                break
        self.port = int(line.split()[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        """Away at once, whatever it does."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)


@contextmanager
def llama_server(model: Path, port: int = 0, **settings: Any) -> Iterator[LlamaServer]:
    """A server for some tests."""
    server = LlamaServer(model, port, **settings)
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    """Serve until the end."""
    import uvicorn
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    model, port, settings = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    shown = {"api_key": settings.pop("api_key", None), "interrupt_requests": False}
    shown["interrupt_requests"] = settings.pop("interrupt_requests", False)
    models = [
        ModelSettings(
            model=model, model_alias=settings.pop("alias", "tiny"), n_threads=1, **settings
        )
    ]
    app = create_app(server_settings=ServerSettings(**shown), model_settings=models)
    listener = socket.create_server(("127.0.0.1", port))
    print("listening", listener.getsockname()[1], flush=True)  # noqa: T201
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
