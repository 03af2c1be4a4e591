"""The guide's network: a small Qwen3-MoE decoder, as llama.cpp computes it, in torch.

Knows the forward pass on packed rows. Knows nothing of text, training or files.
Architecture: RMSNorm, grouped-query attention with a norm per head on q and k, rotary position in the
"neox" layout (Su et al. 2021), a softmax router over all experts whose top-k weights are renormalised,
SwiGLU experts (Shazeer 2020), load-balance loss of Switch Transformers (Fedus et al. 2021), tied embedding.

A network starts with a pair of induction heads ("In-context learning and induction heads", Olsson et al. 2022):
one that looks at the token before, and one that looks for where the present token stood before and copies what
followed it there. Found by training alone they take more text than the whole recipe has, and without them names
that were never seen come back misspelt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; widths are multiples of 256 so that every GGUF type can hold the rows."""

    vocab: int = 2048
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 8
    experts_used: int = 2
    expert_width: int = 256
    rope_base: float = 10000.0
    norm_eps: float = 1e-6
    context: int = 4096


def rope_tables(shape: Shape, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (rows, 1, tokens, head_dim), for positions (rows, tokens)."""
    half = shape.head_dim // 2
    inverse = shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = positions[:, None, :, None].float() * inverse
    return torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position on x (rows, heads, tokens, head_dim); pairs are (i, i + head_dim / 2)."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_dim
        self.q = nn.Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k = nn.Linear(shape.hidden, kv_width, bias=False)
        self.v = nn.Linear(shape.hidden, kv_width, bias=False)
        self.output = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)
        self.q_norm = nn.RMSNorm(shape.head_dim, shape.norm_eps)
        self.k_norm = nn.RMSNorm(shape.head_dim, shape.norm_eps)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (rows, tokens, hidden); mask (rows, 1, tokens, tokens): 0 where allowed, else -inf."""
        rows, tokens, _ = x.shape
        groups = self.shape.heads // self.shape.kv_heads

        def split(projected: Tensor) -> Tensor:
            return projected.view(rows, tokens, -1, self.shape.head_dim).transpose(1, 2)

        q = rotate(self.q_norm(split(self.q(x)).float()), cos, sin)
        k = rotate(self.k_norm(split(self.k(x)).float()), cos, sin).repeat_interleave(groups, 1)
        v = split(self.v(x)).repeat_interleave(groups, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).reshape(rows, tokens, -1))


class Experts(nn.Module):
    """Router and experts. Tokens are grouped by expert, so that each expert is three dense products."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.router = nn.Linear(shape.hidden, shape.experts, bias=False)
        up = (shape.experts, shape.expert_width, shape.hidden)
        self.gate = nn.Parameter(torch.empty(up))
        self.up = nn.Parameter(torch.empty(up))
        self.down = nn.Parameter(torch.empty(shape.experts, shape.hidden, shape.expert_width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (tokens, hidden) -> the same shape, and the load-balance loss (1.0 when even)."""
        used, experts = self.shape.experts_used, self.shape.experts
        probabilities = self.router(x).float().softmax(-1)
        weights, chosen = probabilities.topk(used, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=experts)
        grouped = x[order // used].split(counts.tolist())
        # unbind, not indexing: the gradient of an index is a zero tensor as large as all the experts
        matrices = zip(self.gate.unbind(), self.up.unbind(), self.down.unbind(), strict=True)
        outputs = [
            F.linear(F.silu(F.linear(part, gate)) * F.linear(part, up), down)
            for part, (gate, up, down) in zip(grouped, matrices, strict=True)
        ]
        scaled = torch.cat(outputs) * weights.flatten()[order, None].to(x.dtype)
        result = torch.zeros_like(x).index_add(0, order // used, scaled.to(x.dtype))
        share = counts.float() / counts.sum()
        return result, experts * (share * probabilities.mean(0)).sum()


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.attention = Attention(shape)
        self.experts_norm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.experts = Experts(shape)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.attention(self.attention_norm(x), mask, cos, sin)
        mixed, balance = self.experts(self.experts_norm(x).flatten(0, 1))
        return x + mixed.view_as(x), balance


class Guide(nn.Module):
    """The decoder. Rows may hold several conversations; `segments` keeps them apart."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.reset()

    def reset(self) -> None:
        """Normal initialisation; what writes into the residual stream starts smaller (GPT-2)."""
        residual = (2 * self.shape.layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                continue
            spread = 0.02 if "embedding" in name else self.shape.hidden**-0.5
            if name.endswith(("output.weight", "down")):
                spread *= 0.1 * residual
            nn.init.normal_(weight, 0.0, spread)
        with torch.no_grad():
            self._induce()

    def _induce(self) -> None:
        """Lets one head of layer 0 and one of each KV head of layer 1 start as induction heads.

        The first feature of every embedding is the same, which gives a head constant queries and keys:
        turned by the rotary position, three of the fastest pairs then prefer the distance 1. That head
        writes a code of the token before into the last features, which the embedding leaves empty; heads
        of layer 1 compare it with the same code of the present token, in the slow pairs, and copy.
        """
        shape, size, half = self.shape, self.shape.head_dim, self.shape.head_dim // 2
        embedding, code = self.embedding.weight, shape.hidden - size
        embedding[:, 0] = 8 * 0.02
        embedding[:, code:] = 0.0
        fast = torch.arange(3)
        slow = torch.cat([torch.arange(half - 12, half), torch.arange(size - 12, size)])

        before = self.layers[0].attention
        pattern = torch.zeros(size)
        pattern[fast] = 1.0
        angle = shape.rope_base ** (
            -fast / half
        )  # the key one position back is turned by this less
        asked = torch.zeros(size)
        asked[fast], asked[fast + half] = angle.cos(), -angle.sin()
        before.k.weight[:size], before.q.weight[:size] = 0.0, 0.0
        before.k.weight[:size, 0], before.q.weight[:size, 0] = pattern, asked
        for norm in (before.q_norm, before.k_norm):
            norm.weight[torch.cat([fast, fast + half])] = 1.8
        # The code: a fixed mixture of the embedding's features, one value in each of a head's features.
        mixture = torch.randn(size, code - 1) / (code - 1) ** 0.5
        before.v.weight[:size] = 0.0
        before.v.weight[:size, 1:code] = mixture
        before.output.weight[:, :size] = 0.0
        before.output.weight[code:, :size] = 0.04 * torch.eye(size)

        copying = self.layers[1].attention
        group = shape.heads // shape.kv_heads * size
        for head in range(shape.kv_heads):
            key, query = head * size + slow, head * group + slow
            copying.k.weight[head * size : (head + 1) * size] = 0.0
            copying.q.weight[head * group : head * group + size] = 0.0
            part = slice(head * len(slow) // 2, head * len(slow) // 2 + len(slow))
            copying.k.weight[key, code:] = torch.eye(size)[part]
            copying.q.weight[query, 1:code] = mixture[part]
            content = torch.randn(size, code - 1) / (code - 1) ** 0.5
            copying.v.weight[head * size : (head + 1) * size] = 0.0
            copying.v.weight[head * size : (head + 1) * size, 1:code] = content
            columns = slice(head * group, head * group + size)
            copying.output.weight[:, columns] = 0.0
            copying.output.weight[1:code, columns] = 0.04 * content.T
        for norm in (copying.q_norm, copying.k_norm):
            norm.weight[slow] = 1.8

    def forward(
        self, tokens: Tensor, segments: Tensor, positions: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All arguments (rows, tokens) -> logits (count, vocab), mean load-balance loss.

        Logits come only for the positions where `wanted` is true, in row-major order.
        """
        length = tokens.shape[1]
        cos, sin = rope_tables(self.shape, positions)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = (segments[:, :, None] == segments[:, None, :]) & causal
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)[:, None]
        x = self.embedding(tokens)
        balance = torch.zeros(())
        for layer in self.layers:
            x, part = layer(x, mask, cos, sin)
            balance = balance + part / self.shape.layers
        return F.linear(self.norm(x[wanted]), self.embedding.weight), balance
