"""Attention contexts that bring keys and values from elsewhere: the chat's cache and the prompt's prefix."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Cache

from core.layers.attention import grouped_attention


class CachedAttention:
    """Appends to a transformers cache and attends to all of it.

    Args:
        cache: grows by the given keys and values.
        mask: boolean [B, 1, S, K] over the grown cache, or None when every query sees every key.
        causal: plain causal attention, for a first pass with an empty cache.
    """

    def __init__(self, cache: Cache, mask: Tensor | None, causal: bool) -> None:
        self.cache, self.mask, self.causal = cache, mask, causal

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key, value = self.cache.update(key, value, layer)
        mask = None if self.mask is None else self.mask[..., : key.shape[2]]
        return grouped_attention(query, key, value, mask, self.causal)


@dataclass
class TextPrefix:
    """Keys and values of one prompt in every block, computed once and reused in every denoising step.

    Text rows see neither the timestep nor the noise, in any block, so this is exact. ``keys[layer]`` and
    ``values[layer]`` are [1, G, T, E] with T the prompt's real tokens (no padding).
    """

    length: int
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


class RecordingAttention:
    """Plain causal attention over one unpadded prompt that keeps the keys and values."""

    def __init__(self, prefix: TextPrefix) -> None:
        self.prefix = prefix

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG002
        self.prefix.keys.append(key)
        self.prefix.values.append(value)
        return grouped_attention(query, key, value, causal=True)


class PrefixAttention:
    """[timestep | noise] queries over [text prefix | timestep | noise] keys, without any mask.

    The timestep token sees the text and itself; noise tokens see everything. Each row of the batch brings its own
    prefix, of its own length, so nothing is padded and nothing is hidden.
    """

    def __init__(self, prefixes: list[TextPrefix]) -> None:
        self.prefixes = prefixes

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = []
        for row, prefix in enumerate(self.prefixes):
            own = slice(row, row + 1)
            keys = torch.cat([prefix.keys[layer], key[own]], dim=2)  # (1, G, T + 1 + N, E)
            values = torch.cat([prefix.values[layer], value[own]], dim=2)
            seen = prefix.length + 1
            timestep = grouped_attention(query[own, :, :1], keys[:, :, :seen], values[:, :, :seen])
            noise = grouped_attention(query[own, :, 1:], keys, values)
            rows.append(torch.cat([timestep, noise], dim=2))
        return torch.cat(rows)
