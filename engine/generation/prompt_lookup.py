"""Drafts by prompt lookup: what followed the last time that the conversation ended as it ends now.

Source: Saxena 2023, "Prompt Lookup Decoding". Here the last place of the last four tokens decides, else that of the
last two. Dictionaries find it in a millionth of a second or two: a small model's token takes a few hundred.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_MATCH = 16
"""Tokens that are compared."""


class History:
    """The tokens of a conversation, prompt and reply, and where each two and each four of them were last."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.match = 0
        """So many of the last tokens were met before in this order; 0: not even two."""
        self._found = -1
        """Where the earlier ones end."""
        self._waiting: list[int] = []
        self._twos: dict[tuple[int, int], int] = {}
        self._fours: dict[tuple[int, int, int, int], int] = {}

    def begin(self, prompt: Sequence[int]) -> None:
        """Hold `prompt`, which mostly goes on from what is held."""
        self.catch_up()
        held = len(self.tokens)
        if self.tokens != list(prompt[:held]):
            held = 0
            self.tokens.clear()
            self._twos.clear()
            self._fours.clear()
        self.match, self._found = 0, -1
        for token in prompt[held:]:
            self.append(token)

    def later(self, token: int) -> None:
        """One more token, to be looked at by `catch_up`."""
        self._waiting.append(token)

    def catch_up(self) -> None:
        """Look at the tokens that wait."""
        if self._waiting:
            for token in self._waiting:
                self.append(token)
            self._waiting.clear()

    def append(self, token: int) -> None:
        """One more token."""
        tokens, went_on = self.tokens, self._found + 1
        tokens.append(token)
        last = len(tokens) - 1
        found = -1
        if last >= 1:
            two = (tokens[last - 1], token)
            found = self._twos.get(two, -1)
            self._twos[two] = last
            if last >= 3:
                four = (tokens[last - 3], tokens[last - 2], *two)
                found = self._fours.get(four, found)
                self._fours[four] = last
        self._found = found
        if found < 0:
            self.match = 0
        elif found == went_on and self.match:
            self.match = min(self.match + 1, LONGEST_MATCH)
        else:
            self.match = self._matching(found, last)

    def _matching(self, found: int, last: int) -> int:
        tokens, match = self.tokens, 2
        most = min(LONGEST_MATCH, found + 1)
        while match < most and tokens[found - match] == tokens[last - match]:
            match += 1
        return match

    @property
    def expected(self) -> int:
        """The token that followed; only behind a match."""
        return self.tokens[self._found + 1]

    def draft(self, most: int) -> list[int]:
        """`most` tokens that may follow; only behind a match."""
        found, last = self._found, len(self.tokens) - 1
        drafted = self.tokens[found + 1 : found + 1 + most]
        while len(drafted) < most:  # what repeats itself goes on behind what there is
            drafted.append(drafted[found - last + len(drafted)])
        return drafted
