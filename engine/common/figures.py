"""One turn in numbers, as the engine measures it and the application shows and keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """One turn in numbers. Seconds of wall time; `reply_tokens` include thinking, `cached_tokens` those that
    were restored from the disk."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    thinking_tokens: int = 0
    prefill_seconds: float = 0.0
    first_token_seconds: float = 0.0
    decode_seconds: float = 0.0
    context_used: int = 0
    context_size: int = 0
    seed: int = 0
    restored_tokens: int = 0
    restore_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    """Of those drafted by prompt lookup."""
    saved_seconds: float = 0.0
    """What they gained, by what a token alone takes; below 0: lost."""

    @property
    def decode_tok_s(self) -> float:
        """Tokens a second after the first, 0 when there was no second one."""
        if self.reply_tokens < 2 or self.decode_seconds <= 0:
            return 0.0
        return (self.reply_tokens - 1) / self.decode_seconds

    @property
    def one_by_one_tok_s(self) -> float:
        """`decode_tok_s` without what prompt lookup gave, which is the text's and not the machine's."""
        return self.decode_tok_s / (1.0 + self.lookup_gain)

    @property
    def lookup_gain(self) -> float:
        """By what share prompt lookup made the reply faster: 0.18 is 18 %; below 0: slower."""
        if self.decode_seconds <= 0:
            return 0.0
        return max(self.saved_seconds / self.decode_seconds, -0.5)

    @property
    def prefill_tok_s(self) -> float:
        """Prompt tokens a second, cached ones left out."""
        fresh = self.prompt_tokens - self.cached_tokens
        return fresh / self.prefill_seconds if self.prefill_seconds > 0 else 0.0
