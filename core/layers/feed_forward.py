"""The gated MLP of every block."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.activations import ACT2FN


class FeedForward(nn.Module):
    """down(act(gate(x)) * up(x)), all with bias; a plain MLP is the case up.weight = 0, up.bias = 1."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden)
        self.up_proj = nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)
        self.activation = ACT2FN[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
