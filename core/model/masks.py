"""HaploOmni attention as pure functions (spec section 3).

Every token carries a start index: key k is visible to query q when ``start[k] <= q``.
A text token starts at itself, which is causal attention.
All tokens of one image, or of one video frame, start at the group's first token, so the group sees itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.errors import PromptError


def start_ids(
    input_ids: Tensor,
    image_token: int,
    video_token: int,
    image_counts: Sequence[int],
    frame_counts: Sequence[Sequence[int]],
) -> Tensor:
    """Start indices [B, S] of a batch of expanded ``input_ids`` [B, S].

    Args:
        image_token, video_token: ids of the placeholders.
        image_counts: tokens of every image, in reading order over the batch.
        frame_counts: for every video, the tokens of its groups (each frame, then 1 for the closing newline).

    Raises:
        PromptError: placeholder tokens and media do not match.
    """
    batch, length = input_ids.shape
    starts = torch.arange(length, device=input_ids.device).repeat(batch, 1)
    _group(starts, input_ids, image_token, list(image_counts), "image")
    _group(starts, input_ids, video_token, [count for video in frame_counts for count in video], "video")
    return starts


def _group(starts: Tensor, input_ids: Tensor, token: int, counts: list[int], kind: str) -> None:
    places = (input_ids == token).nonzero()  # reading order: row by row
    if len(places) != sum(counts):
        raise PromptError(
            f"The text holds {len(places)} {kind} tokens but the given {kind}s make {sum(counts)}."
        )
    done = 0  # placeholders that belong to a group already
    for count in counts:
        group = places[done : done + count]
        if len(group) and not (group[0, 0] == group[-1, 0] and group[-1, 1] - group[0, 1] == count - 1):
            raise PromptError(f"The {kind} tokens of one {kind} must stand together in one row.")
        starts[group[:, 0], group[:, 1]] = group[0, 1]
        done += count


def visible(starts: Tensor, key_is_real: Tensor, first_query: int = 0) -> Tensor:
    """Boolean mask [B, 1, S, K], True where a query may look.

    Args:
        starts: start indices of all keys [B, K].
        key_is_real: [B, K], False on padding.
        first_query: position of the first query among the keys; queries run from there to the end.
    """
    length = starts.shape[1]
    queries = torch.arange(first_query, length, device=starts.device)
    mask = (starts[:, None, :] <= queries[:, None]) & key_is_real[:, None, :].bool()
    # a padding query sees itself, so that no row of the softmax is empty
    mask |= queries[:, None] == torch.arange(length, device=starts.device)
    return mask[:, None]


def generation_starts(text_length: int, noise_length: int, batch: int, device: torch.device) -> Tensor:
    """Start indices [B, T + 1 + N] of [text | timestep | noise]: text and timestep causal, noise one group.

    Args:
        text_length, noise_length: T and N, in tokens.
        batch: B.
    """
    starts = torch.arange(text_length + 1 + noise_length, device=device)
    starts[text_length + 1 :] = text_length + 1
    return starts.repeat(batch, 1)


def positions(attention_mask: Tensor) -> Tensor:
    """Position ids [B, S] of ``attention_mask`` [B, S], counted from the first real token; padding has 0."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
