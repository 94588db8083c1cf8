"""The gated MLP of every block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

CHUNK_SIZE = 4096  # tokens


class FeedForward(nn.Module):
    """down(act(gate(x)) * up(x)), all with bias; a plain MLP is the case up.weight = 0, up.bias = 1.

    Without gradients, more than ``chunk_size`` tokens pass in chunks; 0 means never.
    That gives the same numbers and keeps the inner width of a few tokens at a time.
    """

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden)
        self.up_proj = nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)
        self.activation = ACT2FN[activation]
        self.chunk_size = CHUNK_SIZE

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        if torch.is_grad_enabled():
            return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        tokens = x.flatten(0, 1)  # (B S, D)
        if not self.chunk_size or len(tokens) <= self.chunk_size:
            return self._pass(x)
        chunks = -(-len(tokens) // self.chunk_size)
        made = torch.empty_like(tokens)
        for given, place in zip(tokens.chunk(chunks), made.chunk(chunks), strict=True):
            place.copy_(self._pass(given))
        return made.view_as(x)

    def _pass(self, x: Tensor) -> Tensor:
        inner = self.activation(self.gate_proj(x))
        return self.down_proj(inner.mul_(self.up_proj(x)))
