"""The connector between two parts of different width (paper eq. 4-6, feature pre-scaling)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Connector(nn.Module):
    """An affine map and its transform, mixed per token by an indicator.

    Args:
        width_in, width_out: widths of the two parts.
        use_pre_norm: LayerNorm before the affine map and a learned scale after it (feature pre-scaling); the
            indicator then reads the transform instead of the affine map.
        use_affine_bias: bias in the affine map.
    """

    def __init__(self, width_in: int, width_out: int, use_pre_norm: bool, use_affine_bias: bool) -> None:
        super().__init__()
        self.affine = nn.Linear(width_in, width_out, bias=use_affine_bias)
        self.transform = nn.Sequential(nn.LayerNorm(width_out), nn.SiLU(), nn.Linear(width_out, width_out))
        self.connector_indicator = nn.Sequential(nn.SiLU(), nn.Linear(width_out, 2))
        self.pre_norm = nn.LayerNorm(width_in) if use_pre_norm else None
        self.scale = nn.Parameter(torch.ones(width_out)) if use_pre_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, width_in] -> [B, S, width_out]."""
        direct = self.direct(x)
        transformed = self.transform(direct)
        switch = self.connector_indicator(direct if self.pre_norm is None else transformed)
        switch = F.softmax(switch, dim=-1)  # (B, S, 2)
        return transformed * switch[..., :1] + direct * switch[..., 1:]

    def affine_input(self, x: Tensor) -> Tensor:
        """What the affine map reads: [B, S, width_in]."""
        return x if self.pre_norm is None else self.pre_norm(x)

    def direct(self, x: Tensor) -> Tensor:
        """The path past the transform: [B, S, width_in] -> [B, S, width_out]."""
        mapped = self.affine(self.affine_input(x))
        return mapped if self.scale is None else mapped * self.scale.to(x.dtype)
