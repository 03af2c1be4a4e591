"""Options that name a model on a server: `--endpoint URL` and `--remote-model NAME`."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add both; `default` stands where one is not given."""
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        default=default,
        help="a server of models (vLLM, SGLang, llama-server, Ollama …): http://HOST:PORT/v1",
    )
    parser.add_argument(
        "--remote-model", metavar="NAME", default=default, help="which of the server's models"
    )


def model(args: argparse.Namespace) -> str | None:
    """The model that is asked for: a file, or an address on a server. Raises `UsageError`."""
    path: str | None = args.model
    if not args.endpoint and not args.remote_model:
        return path
    from ktchat.common.errors import UsageError

    if not args.endpoint:
        raise UsageError("--remote-model goes with --endpoint", "", "Give the server's address")
    if path:
        raise UsageError("There are two models", "", "Leave out -m or --endpoint")
    from engine.remote.address import named
    from engine.remote.errors import AddressError

    try:
        return named(args.endpoint, args.remote_model or "")
    except AddressError as error:
        raise UsageError(error.what, error.why, error.todo) from None
