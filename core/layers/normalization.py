"""Norms, and the multimodal AdaLN that modulates them (paper eq. 2-3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Root-mean-square norm in the tensor's own dtype: x / rms(x) * weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.weight.to(x.dtype) * _divide_by_rms(x, self.eps)


def _divide_by_rms(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class Modulated(NamedTuple):
    """A modulated input for a branch and the gate of that branch's output, both [B, S, D]."""

    hidden: Tensor
    gate: Tensor


class MultimodalAdaLN(nn.Module):
    """A norm whose shift, scale and gate are mixed per token from a condition set and a latent set.

    The indicator reads the token and weighs the two sets: s = softmax(W SiLU(h)).
    s[0] weighs the latent set SSG_L, s[1] the condition set SSG_C.
    The frozen time embedding of paper eq. 3 is folded into both sets.

    Args:
        width: D.
        eps: of the norm.
        norm_mode: ``"layernorm"`` (weight and bias) or ``"rmsnorm"`` (weight only).
    """

    def __init__(self, width: int, eps: float, norm_mode: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if norm_mode == "layernorm" else None
        self.SSG_C = nn.Parameter(torch.empty(3, width))  # rows: shift, scale, gate
        self.SSG_L = nn.Parameter(torch.empty(3, width))
        self.indicator = nn.Linear(width, 2)
        self.eps = eps
        self.reset_modulation()

    def reset_modulation(self) -> None:
        """The neutral start: shift 0, scale 0, gate 1, both modalities weighed alike."""
        neutral = torch.tensor([[0.0], [0.0], [1.0]], device=self.SSG_C.device, dtype=self.SSG_C.dtype)
        with torch.no_grad():
            self.SSG_C.copy_(neutral.expand_as(self.SSG_C))
            self.SSG_L.copy_(neutral.expand_as(self.SSG_L))
            self.indicator.weight.zero_()
            self.indicator.bias.zero_()

    def forward(self, x: Tensor) -> Modulated:
        """[B, S, D] -> what the branch reads, and the gate of what it gives."""
        seen = self._seen(x)
        if self.bias is None:
            normed = self.weight.to(x.dtype) * seen
        else:
            normed = F.layer_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
        shift, scale, gate = self._mix(self.indicator(F.silu(seen)).softmax(-1).to(x.dtype))
        return Modulated(normed * (1 + scale) + shift, gate)

    def indicator_input(self, x: Tensor) -> Tensor:
        """What the indicator reads of tokens [B, S, D]."""
        return F.silu(self._seen(x))

    def _seen(self, x: Tensor) -> Tensor:
        return _divide_by_rms(x, self.eps) if self.bias is None else x

    def _mix(self, switch: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate [B, S, D] from switch scores [B, S, 2] (latent, condition)."""
        sets = torch.stack([self.SSG_L, self.SSG_C]).to(switch.dtype)  # (2, 3, D)
        if torch.is_grad_enabled():  # one matrix product has the cheaper backward; it rounds differently
            return (switch @ sets.flatten(1)).chunk(3, dim=-1)
        latent, condition = switch.split(1, dim=-1)  # (B, S, 1) each
        return tuple(
            latent * of_latent + condition * of_condition
            for of_latent, of_condition in zip(*sets, strict=True)
        )
