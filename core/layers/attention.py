"""Attention: projections and positions here, what may see what in an :class:`AttentionContext`."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from core.layers.rotary import RotaryTable, apply_rotary


class AttentionContext(Protocol):
    """Decides which keys a query sees, and where further keys and values come from (a cache, a prefix)."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries [B, H, S, E], keys and values [B, G, S, E] of block ``layer`` -> [B, H, S, E]."""


class FullAttention:
    """Attention over the whole given sequence, under a mask.

    Args:
        mask: boolean [B, 1, S, S], True where a query may look; None where all is seen, or with ``causal``.
        causal: each query sees itself and what came before.
        eager: matrix product and softmax instead of the fused kernel, with the faster backward pass on a CPU.
    """

    def __init__(self, mask: Tensor | None = None, causal: bool = False, eager: bool = False) -> None:
        self.mask = mask
        self.causal = causal
        self.eager = eager

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG002
        """Queries [B, H, S, E], keys and values [B, G, S, E] -> [B, H, S, E]; all blocks see the same."""
        if self.eager:
            return eager_attention(query, key, value, self.mask)
        return grouped_attention(query, key, value, self.mask, self.causal)


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Scaled dot-product attention: queries [B, H, S, E], keys and values [B, G, K, E] -> [B, H, S, E].

    Args:
        mask: boolean, broadcast to [B, H, S, K], True where a query may look.
        causal: instead of a mask, each query sees itself and what came before (S = K).
    """
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped
    )


def eager_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """:func:`grouped_attention` in plain matrix products: [B, H, S, E], [B, G, K, E] -> [B, H, S, E].

    Args:
        mask: boolean, broadcast to [B, H, S, K], True where a query may look; None where all is seen.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)  # (B, H, K, E)
        value = value.repeat_interleave(groups, dim=1)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, H, S, K)
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    return scores.softmax(-1).to(value.dtype) @ value


class Attention(nn.Module):
    """Grouped-query self-attention with biases everywhere and optional q/k LayerNorm before the rotation.

    Args:
        width: D.
        heads: H.
        key_value_heads: G.
        use_qk_norm: LayerNorm over the head width on queries and keys.
        layer: index of the block in the whole stack, the key of its cache slot.
    """

    def __init__(self, width: int, heads: int, key_value_heads: int, use_qk_norm: bool, layer: int) -> None:
        super().__init__()
        head_dim = width // heads
        self.q_proj = nn.Linear(width, heads * head_dim)
        self.k_proj = nn.Linear(width, key_value_heads * head_dim)
        self.v_proj = nn.Linear(width, key_value_heads * head_dim)
        self.o_proj = nn.Linear(heads * head_dim, width)
        self.norm_q = nn.LayerNorm(head_dim, eps=1e-5) if use_qk_norm else nn.Identity()
        self.norm_k = nn.LayerNorm(head_dim, eps=1e-5) if use_qk_norm else nn.Identity()
        self.head_dim = head_dim
        self.layer = layer

    def forward(self, x: Tensor, rotary: RotaryTable | None, context: AttentionContext) -> Tensor:
        """[B, S, D] -> [B, S, D]; without a rotary table queries and keys stay as they are."""
        query, key, value = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H or G, S, E)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = self.norm_q(query), self.norm_k(key)
        if rotary is not None:
            query, key = apply_rotary(query, rotary), apply_rotary(key, rotary)
        mixed = context.attend(self.layer, query, key, value)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # (B, S, D)
