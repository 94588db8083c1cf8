"""What goes into the decoder beside the tokens: positions, and a context that says who sees whom.

Some contexts bring keys and values from elsewhere: the chat's cache and the prompt's prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right
from transformers import Cache, DynamicCache

from core.layers.attention import AttentionContext, FullAttention, grouped_attention
from core.model import masks


class CachedAttention:
    """Appends to a transformers cache and attends to all of it.

    Args:
        cache: grows by the given keys and values.
        mask: boolean [B, 1, S, K] over the grown cache (or a bias that says as much), None when all is seen.
        length: K, of the grown cache; a cache of fixed size gives more, which nothing was written to yet.
        causal: plain causal attention, for a first pass with an empty cache.
    """

    def __init__(self, cache: Cache, mask: Tensor | None, length: int, causal: bool) -> None:
        self.cache = cache
        self.mask = mask
        self.length = length
        self.causal = causal

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries [B, H, S, E] over the grown cache -> [B, H, S, E]; keys and values are [B, G, S, E]."""
        key, value = self.cache.update(key, value, layer)
        key, value = key[:, :, : self.length], value[:, :, : self.length]
        return grouped_attention(query, key, value, self.mask, self.causal)


@dataclass
class PromptKVCache:
    """Keys and values of one prompt in every block, computed once and reused in every denoising step.

    Text rows see neither the timestep nor the noise, in any block, so this is exact.
    ``keys[layer]`` and ``values[layer]`` are [1, G, T, E], with T = ``length`` tokens and no padding.
    """

    length: int
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


class RecordingAttention:
    """Plain causal attention over one unpadded prompt that keeps the keys and values."""

    def __init__(self, prefix: PromptKVCache) -> None:
        self.prefix = prefix

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG002
        """Queries [1, H, T, E], keys and values [1, G, T, E] -> [1, H, T, E]; blocks come in their order."""
        self.prefix.keys.append(key)
        self.prefix.values.append(value)
        return grouped_attention(query, key, value, causal=True)


class PrefixAttention:
    """[timestep | noise] queries over [text prefix | timestep | noise] keys, without any mask.

    The timestep token sees the text and itself; noise tokens see everything.
    Each row of the batch brings its own prefix of its own length, so nothing is padded or hidden.
    """

    def __init__(self, prefixes: list[PromptKVCache]) -> None:
        self.prefixes = prefixes

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries [B, H, 1 + N, E], keys and values [B, G, 1 + N, E] -> [B, H, 1 + N, E]."""
        rows = []
        for row, prefix in enumerate(self.prefixes):
            # this row's keys and values behind those of its prompt
            own = slice(row, row + 1)
            keys = torch.cat([prefix.keys[layer], key[own]], dim=2)  # (1, G, T + 1 + N, E)
            values = torch.cat([prefix.values[layer], value[own]], dim=2)
            # the timestep looks no further than itself, the noise everywhere
            seen = prefix.length + 1
            timestep = grouped_attention(query[own, :, :1], keys[:, :, :seen], values[:, :, :seen])
            noise = grouped_attention(query[own, :, 1:], keys, values)
            rows.append(torch.cat([timestep, noise], dim=2))
        return torch.cat(rows)


# -- what goes in


class StackInput(NamedTuple):
    """Tokens of any modality, where they stand, and who sees whom.

    Args:
        embeds: [B, S, D] at the width of the part that reads them.
        position_ids: [B, S].
        context: who sees whom.
    """

    embeds: Tensor
    position_ids: Tensor
    context: AttentionContext


def in_autocast_precision(embeds: Tensor) -> Tensor:
    """A residual stream [B, S, D] in the precision of a running autocast region; outside of any as it is."""
    if torch.is_autocast_enabled(embeds.device.type):
        return embeds.to(torch.get_autocast_dtype(embeds.device.type))
    return embeds


def cache_in_use(cache: Cache | None, past_key_values: Cache | None, use_cache: bool | None) -> Cache | None:
    """The given cache under either name, or a new one where one is wanted."""
    if cache is None:
        cache = past_key_values
    if cache is None and use_cache:
        cache = DynamicCache()
    return cache


def understanding_context(
    starts: Tensor, attention_mask: Tensor | None, cache: Cache | None
) -> tuple[Tensor, AttentionContext]:
    """Position ids [B, S] and the context of a conversation, or of its next tokens.

    Args:
        starts: start indices [B, S] of the given tokens.
        attention_mask: [B, past + S], 1 on real tokens; None where all are.
        cache: what came before; grows by the given tokens.
    """
    past = int(cache.get_seq_length()) if cache is not None else 0
    batch, length = starts.shape
    if attention_mask is None or attention_mask.dim() != 2:
        attention_mask = torch.ones(batch, past + length, device=starts.device, dtype=torch.long)
    position_ids = masks.positions(attention_mask)[:, -length:]
    padded = not bool(attention_mask.all())
    mask: Tensor | None = None
    in_order = not padded and bool((starts == torch.arange(length, device=starts.device)).all())
    causal = in_order and past == 0
    if in_order and past and length > 1:
        # said in PyTorch's own way, which on a GPU keeps the kernel that needs no mask in memory
        mask = causal_lower_right(length, past + length)
    elif not in_order:
        # earlier keys are all before every query: any start up to `past` will do
        earlier = torch.zeros(batch, past, device=starts.device, dtype=starts.dtype)
        mask = masks.visible(torch.cat([earlier, starts + past], dim=1), attention_mask, first_query=past)
    if cache is not None:
        return position_ids, CachedAttention(cache, mask, past + length, causal)
    return position_ids, FullAttention(mask, causal)


def understanding_input(
    embeds: Tensor, starts: Tensor, attention_mask: Tensor | None, cache: Cache | None, read_until: int | None
) -> StackInput:
    """A conversation's next tokens, all of the given ones or some.

    Args:
        embeds, starts, attention_mask, cache: tokens [B, S, D]; else as in :func:`understanding_context`.
        read_until: the given tokens are a whole conversation, whose first ones the cache holds;
            those that follow are read, up to this position. None: all given tokens are new.
    """
    if cache is not None and read_until is not None:
        past = int(cache.get_seq_length())
        embeds = embeds[:, past:read_until]
        starts = starts[:, past:read_until] - past
        if attention_mask is not None:
            attention_mask = attention_mask[:, :read_until]
    return StackInput(embeds, *understanding_context(starts, attention_mask, cache))


def generation_input(
    text: Tensor,
    tail: Tensor,
    attention_mask: Tensor,
    attention: Callable[[Tensor], AttentionContext] = FullAttention,
) -> StackInput:
    """The full sequence [padding | text | timestep | noise] of a noise prediction.

    Args:
        text: the prompt's tokens [B, T, D], left-padded.
        tail: timestep and noise tokens [B, 1 + N, D].
        attention_mask: [B, T], 1 on real tokens.
        attention: makes a context of a mask [B, 1, S, S].
    """
    real = F.pad(attention_mask, (0, tail.shape[1]), value=1)  # (B, T + 1 + N)
    starts = masks.generation_starts(text.shape[1], tail.shape[1] - 1, len(tail), tail.device)
    embeds = in_autocast_precision(torch.cat([text.to(tail.dtype), tail], dim=1))
    return StackInput(embeds, masks.positions(real), attention(masks.visible(starts, real)))
