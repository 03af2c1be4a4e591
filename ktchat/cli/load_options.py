"""Options that say how a model is loaded: its context, the device, the KV cache, prompt lookup.

What is not given is taken from the settings.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.protocol import Auto
    from ktchat.common.settings import Overrides


def add(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add `--ctx`, `--device`, `--kv` and `--lookup`; `default` stands where one is not given."""
    parser.add_argument(
        "--ctx",
        type=context,
        metavar="N|auto",
        default=default,
        help="tokens of context; auto: the most that fit (default: chosen)",
    )
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "gpu"],
        default=default,
        help="what computes; auto: the GPU where one can be used (default: auto)",
    )
    parser.add_argument(
        "--kv",
        choices=["f16", "q8"],
        default=default,
        help="how the context is kept; q8: half the room, a little less exact (default: f16)",
    )
    parser.add_argument(
        "--lookup",
        choices=["on", "off"],
        default=default,
        help="guess tokens from what was said before, where that is faster (default: on)",
    )


def add_send_token(parser: argparse.ArgumentParser) -> None:
    """Add `--send-token` and `--no-send-token`."""
    parser.add_argument(
        "--send-token",
        action=argparse.BooleanOptionalAction,
        help="whether your token for the hub may go to the mirror in HF_ENDPOINT; a yes is remembered",
    )


def context(text: str) -> int | Auto:
    """`auto` or a number. Raises `ValueError`."""
    return "auto" if text == "auto" else int(text)


def overrides(args: argparse.Namespace) -> Overrides:
    """What was given."""
    from ktchat.common.settings import Overrides

    lookup = None if args.lookup is None else args.lookup == "on"
    return Overrides(args.ctx, args.device, args.kv, lookup)
