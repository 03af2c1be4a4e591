"""Trains the guide: an endless stream of generated conversations, packed into rows; AdamW; resumable.

Everything is decided by the seed and the step number, so that a resumed run sees the same batches.
Each core is a worker process of its own with one thread, and gradients are averaged once a step: two
threads of one process meet at a barrier in every product, which on a busy machine costs most of the time.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F  # noqa: N812
import vocabulary
from conversations import Author
from network import Guide, Shape
from torch import Tensor
from vocabulary import Encoded, Encoder


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides a training run."""

    seed: int = 20
    steps: int = 9500
    workers: int = 2
    batch_tokens: int = 1024  # of each worker
    row_lengths: tuple[int, ...] = (256, 512, 1024)
    row_shares: tuple[float, ...] = (0.6, 0.3, 0.1)
    drill_tokens: int = 8  # of the reply in a drill
    echo_share: float = 0.3  # of the first drills only copy random tokens,
    echo_steps: int = 300  # until copying is settled,
    last_echo_share: float = 0.05  # and this share afterwards
    memory_share: float = 0.16  # of the others are about remembering
    peak_rate: float = 1.3e-3
    last_rate: float = 1e-5
    warmup: int = 150
    decay: float = 0.25  # the last part of the steps, in which the rate falls
    weight_decay: float = 0.05
    balance: float = 0.01
    save_every: int = 100

    def rate(self, step: int) -> float:
        """Warm-up, a long level stretch, then a straight fall to `last_rate`."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        left = (self.steps - step) / (self.decay * self.steps)
        return self.last_rate + (self.peak_rate - self.last_rate) * min(1.0, left)


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows, each tensor (rows, length): weights are those of predicting `targets`."""

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    segments: Tensor
    positions: Tensor


Placed = tuple[Encoded, list[int]]
"""A conversation and the position of each of its tokens."""


class Batches:
    """Batch number n of a worker, always the same for the same seed."""

    def __init__(self, encoder: Encoder, recipe: Recipe, context: int, worker: int) -> None:
        self.encoder, self.recipe, self.context = encoder, recipe, context
        self.worker = worker
        self.author = Author(recipe.seed)

    def batch(self, number: int) -> Batch:
        """All rows of a batch are of one length, the same for all workers."""
        recipe = self.recipe
        choice = random.Random(f"{recipe.seed}/{number}")
        length = choice.choices(recipe.row_lengths, recipe.row_shares)[0]
        rng = self.author.rng
        rng.seed(f"{recipe.seed}/{number}/{self.worker}")
        echo = recipe.echo_share if number < recipe.echo_steps else recipe.last_echo_share
        rows = [self.row(length, echo, rng) for _ in range(recipe.batch_tokens // length)]
        return self.pack(rows, length)

    def row(self, length: int, echo: float, rng: random.Random) -> list[Placed]:
        """A conversation in every second short row and in every long one; drills fill the rest.

        Most drills are one question and the start of its reply: what to answer is decided there, and
        the rest of the reply, known by heart soon, would cost most of the time.
        """
        parts: list[Placed] = []
        room, misses = length + 1, 0
        if length > 256 or rng.random() < 0.5:
            encoded = self.encoder.encode(self.author.conversation(rng.randint(2, 18)))
            encoded = encoded.cut(room if length > 512 else int(0.6 * length))
            if encoded.tokens:
                parts.append((encoded, self.spread(encoded, rng)))
                room -= len(encoded.tokens)
        while misses < 3 and room > 16:
            encoded = self.drill(echo, rng)
            if len(encoded.tokens) > room:
                misses += 1
                continue
            parts.append((encoded, self.spread(encoded, rng)))
            room -= len(encoded.tokens)
        return parts

    def drill(self, echo: float, rng: random.Random) -> Encoded:
        """A short exercise in copying (a share `echo` of all), in memory, or in what to answer."""
        if rng.random() < echo:
            return self.encoder.echo(rng)
        if rng.random() < self.recipe.memory_share:
            return self.encoder.encode(self.author.memory())
        question = self.encoder.encode(self.author.conversation(1))
        return question.drill(self.recipe.drill_tokens)

    def spread(self, encoded: Encoded, rng: random.Random) -> list[int]:
        """Positions of a conversation; gaps between turns teach distances longer than a row.

        After "Randomized positional encodings" (Ruoss et al. 2023), with gaps at turns only.
        """
        length = len(encoded.tokens)
        positions = list(range(length))
        if len(encoded.turn_starts) < 2 or rng.random() < 0.6:
            return positions
        left = self.context - length - 64
        for start in encoded.turn_starts[1:]:
            if rng.random() < 0.3 and left > 0:
                gap = rng.randint(0, min(left, 700))
                left -= gap
                positions[start:] = [position + gap for position in positions[start:]]
        return positions

    def pack(self, rows: list[list[Placed]], length: int) -> Batch:
        size = (len(rows), length + 1)
        tokens, positions = (torch.zeros(size, dtype=torch.long) for _ in range(2))
        segments = torch.full(size, -1)
        weights = torch.zeros(size)
        for row, conversations in enumerate(rows):
            at = 0
            for number, (encoded, places) in enumerate(conversations):
                span = slice(at, at + len(encoded.tokens))
                tokens[row, span] = torch.tensor(encoded.tokens)
                weights[row, span] = torch.tensor(encoded.weights)
                positions[row, span] = torch.tensor(places)
                segments[row, span] = number
                at = span.stop
        return Batch(
            tokens[:, :-1], tokens[:, 1:], weights[:, 1:], segments[:, :-1], positions[:, :-1]
        )


def losses(model: Guide, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted mean loss, load-balance loss, and for the replies: mean loss and share predicted right."""
    wanted = batch.weights > 0
    with torch.autocast("cpu", torch.bfloat16):
        logits, balance = model(batch.tokens, batch.segments, batch.positions, wanted)
    targets, weights = batch.targets[wanted], batch.weights[wanted]
    each = F.cross_entropy(logits.float(), targets, reduction="none")
    reply = weights == 1.0
    right = (logits[reply].argmax(-1) == targets[reply]).float().mean()
    loss = (each * weights).sum() / weights.sum()
    return loss, balance, each[reply].mean().detach(), right


def optimiser(model: Guide, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), fused=True)


def save(path: Path, model: Guide, adam: torch.optim.AdamW, progress: dict[str, float]) -> None:
    state = {
        "shape": asdict(model.shape),
        "model": model.state_dict(),
        "adam": adam.state_dict(),
        "progress": progress,
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load(path: Path) -> tuple[Guide, dict[str, float]]:
    """The trained network and its progress."""
    state = torch.load(path, weights_only=True)
    model = Guide(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model, state["progress"]


def average_gradients(model: Guide, workers: int) -> None:
    """Makes every gradient the mean over the workers, in one exchange."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= workers
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()


def train(tokenizer: Path, shape: Shape, recipe: Recipe, path: Path) -> dict[str, float]:
    """Trains up to recipe.steps, going on from the checkpoint at `path` if there is one."""
    meeting = path.with_suffix(".meeting")
    meeting.unlink(missing_ok=True)
    mp.spawn(work, (tokenizer, shape, recipe, path, meeting), nprocs=recipe.workers)
    return load(path)[1]


def work(
    worker: int, tokenizer: Path, shape: Shape, recipe: Recipe, path: Path, meeting: Path
) -> None:
    """One worker process; worker 0 reports and saves."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(meeting), recipe.workers)
    dist.init_process_group("gloo", store=store, rank=worker, world_size=recipe.workers)
    torch.manual_seed(recipe.seed)
    model = Guide(shape)
    adam = optimiser(model, recipe)
    progress: dict[str, float] = {"step": 0, "tokens": 0, "seconds": 0.0}
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        progress = state["progress"]
    batches = Batches(Encoder(vocabulary.load(tokenizer)), recipe, shape.context, worker)
    fresh = batches.batch(-1)
    started = time.monotonic() - progress["seconds"]
    for step in range(int(progress["step"]), recipe.steps):
        batch = batches.batch(step)
        reply_loss, right, balance = advance(model, adam, batch, recipe, step)
        progress["step"] = step + 1
        progress["tokens"] += recipe.workers * int((batch.segments >= 0).sum())
        progress["seconds"] = time.monotonic() - started
        if worker == 0 and (step + 1) % 20 == 0:
            report(progress, recipe, reply_loss, right, balance)
        if worker == 0 and ((step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps):
            with torch.no_grad():
                _, _, unseen, right_unseen = losses(model, fresh)
            print(f"  unseen batch: loss {unseen:.4f}, right {right_unseen:.2%}", flush=True)
            save(path, model, adam, progress)
    dist.barrier()
    dist.destroy_process_group()


def advance(
    model: Guide, adam: torch.optim.AdamW, batch: Batch, recipe: Recipe, step: int
) -> tuple[float, float, float]:
    """One step of the optimiser; returns the losses' figures of this worker's batch."""
    for group in adam.param_groups:
        group["lr"] = recipe.rate(step)
    loss, balance, reply_loss, right = losses(model, batch)
    (loss + recipe.balance * balance).backward()
    average_gradients(model, recipe.workers)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    adam.zero_grad()
    return float(reply_loss), float(right), float(balance.detach())


def report(
    progress: dict[str, float], recipe: Recipe, loss: float, right: float, balance: float
) -> None:
    speed = progress["tokens"] / progress["seconds"]
    left = progress["seconds"] / progress["step"] * (recipe.steps - progress["step"])
    print(
        f"step {progress['step']:5.0f}/{recipe.steps}  loss {loss:.4f}  right {right:.2%}  "
        f"balance {balance:.3f}  {speed:.0f} tokens/s  {left / 60:.0f} min left",
        flush=True,
    )
