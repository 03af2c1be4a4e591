"""The guide's tokeniser: byte-level BPE with Qwen2's splitting, trained on our own text; ChatML encoding.

Special tokens come only from the template; message text is always plain text, as at run time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT, TURN_START, TURN_END = range(3)
# The splitting that llama.cpp calls "qwen2".
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """A tokeniser of `size` tokens; every byte is in the alphabet, so that any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=3,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The training text decides the merges only: from here on a special token is never read from text.
    tokenizer.encode_special_tokens = True
    return tokenizer


def load(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation: token ids, and for each the weight of its prediction in the loss."""

    tokens: list[int]
    weights: list[float]
    turn_starts: list[int]

    def cut(self, room: int) -> Encoded:
        """The whole turns that fit into `room` tokens."""
        if len(self.tokens) <= room:
            return self
        end = max((start for start in self.turn_starts if start <= room), default=0)
        starts = [start for start in self.turn_starts if start < end]
        return Encoded(self.tokens[:end], self.weights[:end], starts)

    def drill(self, reply_tokens: int) -> Encoded:
        """The conversation up to the first tokens of its first reply."""
        start = self.weights.index(1.0)
        end = start + reply_tokens
        return Encoded(self.tokens[:end], self.weights[:end], self.turn_starts)


class Encoder:
    """Encodes conversations as the ChatML template renders them."""

    def __init__(self, tokenizer: Tokenizer, other_weight: float = 0.02) -> None:
        self.tokenizer = tokenizer
        self.other_weight = other_weight
        self.newline = tokenizer.encode("\n").ids
        roles = ("system", "user", "assistant")
        self.headers = {role: tokenizer.encode(role + "\n").ids for role in roles}

    def echo(self, rng: random.Random) -> Encoded:
        """Random tokens, repeated; the repetitions are to be predicted. Practice in copying, outside any chat.

        Nothing but looking back helps here, so the induction heads that copy a name form within some
        hundred steps ("In-context learning and induction heads", Olsson et al. 2022). Random words do not
        do it: their syllables can be guessed.
        """
        first = rng.choices(
            range(len(SPECIAL), self.tokenizer.get_vocab_size()), k=rng.randint(4, 24)
        )
        again = rng.choice((1, 1, 2))
        weights = [0.0] * (len(first) + 1) + [1.0] * (len(first) * again - 1)
        return Encoded(first * (1 + again), weights, [])

    def encode(self, messages: list[dict[str, str]]) -> Encoded:
        tokens: list[int] = []
        weights: list[float] = []
        starts: list[int] = []
        texts = self.tokenizer.encode_batch([message["content"] for message in messages])
        for message, text in zip(messages, texts, strict=True):
            if message["role"] == "user":
                starts.append(len(tokens))
            header = [TURN_START, *self.headers[message["role"]]]
            own = 1.0 if message["role"] == "assistant" else self.other_weight
            tokens += [*header, *text.ids, TURN_END, *self.newline]
            weights += [0.0] * len(header) + [own] * len(text.ids)
            weights += [1.0 if own == 1.0 else 0.0] + [0.0] * len(self.newline)
        return Encoded(tokens, weights, starts)


def merges(path: Path) -> list[str]:
    """The merges of a saved tokeniser, each "left right", best first."""
    pairs = json.loads(path.read_text(encoding="utf-8"))["model"]["merges"]
    return [" ".join(pair) for pair in pairs]
