"""Rotary position embedding, half-rotation form."""

from __future__ import annotations

import torch
from torch import Tensor

RotaryTable = tuple[Tensor, Tensor]
"""Cosine and sine, each [B, 1, S, E]."""


def rotary_table(position_ids: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> RotaryTable:
    """Cosine and sine [B, 1, S, E] for ``position_ids`` [B, S]; angles in float32, result in ``dtype``."""
    exponent = torch.arange(0, head_dim, 2, device=position_ids.device, dtype=torch.float32) / head_dim
    angles = position_ids[..., None].float() * (1.0 / theta**exponent)  # (B, S, E/2)
    angles = torch.cat([angles, angles], dim=-1)[:, None]  # (B, 1, S, E)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(x: Tensor, table: RotaryTable) -> Tensor:
    """Queries or keys ``x`` [B, H, S, E], rotated by their positions -> [B, H, S, E]."""
    cos, sin = table
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
