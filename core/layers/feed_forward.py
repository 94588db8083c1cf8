"""The gated MLP of every block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

PIECE = 4096  # tokens


class FeedForward(nn.Module):
    """down(act(gate(x)) * up(x)), all with bias; a plain MLP is the case up.weight = 0, up.bias = 1.

    Without gradients, more than ``piece`` tokens pass in pieces, which gives the same numbers and keeps the inner
    width of a few tokens at a time; 0 means never.
    """

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden)
        self.up_proj = nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)
        self.activation = ACT2FN[activation]
        self.piece = PIECE

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        if torch.is_grad_enabled():
            return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        tokens = x.flatten(0, 1)  # (B S, D)
        pieces = -(-len(tokens) // self.piece) if self.piece else 1
        if pieces < 2:
            return self._pass(x)
        made = torch.empty_like(tokens)
        for given, place in zip(tokens.chunk(pieces), made.chunk(pieces), strict=True):
            place.copy_(self._pass(given))
        return made.view_as(x)

    def _pass(self, x: Tensor) -> Tensor:
        inner = self.activation(self.gate_proj(x))
        return self.down_proj(inner.mul_(self.up_proj(x)))
