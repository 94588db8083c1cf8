"""Rows of several dialogues about one medium, and batches of such rows.

Each dialogue sees the medium and itself alone, and its positions start right behind the medium.
So it is exactly as if it stood there on its own, and one pass over the medium teaches many answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.model import masks
from core.training.data.tokenization import IGNORE


@dataclass
class PackedBatch:
    """Rows padded on the right to the longest.

    Args:
        ids, attention_mask, labels, position_ids: [B, S].
        mask: bool [B, 1, S, S], who sees whom.
        tiles: [T, 3, 84, 84] of every medium.
        sizes: (height, width) in pixels of every picture, None of a clip.
    """

    ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    position_ids: Tensor
    mask: Tensor
    tiles: list[Tensor]
    sizes: list[tuple[int, int] | None]

    @property
    def count(self) -> int:
        """Tokens whose prediction counts."""
        return int((self.labels[:, 1:] != IGNORE).sum())


@dataclass
class PackedRow:
    """One row before padding.

    Args:
        ids, labels, position_ids: one a token.
        starts: where the group of every token begins; tokens of one group see each other.
        segments: 0 for the medium, n for the n-th dialogue.
        media: tiles [T, 3, 84, 84] with the (height, width) of a picture or None of a clip.
    """

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    media: list[tuple[Tensor, tuple[int, int] | None]] = field(default_factory=list)

    def open(self, ids: Sequence[int], group: bool = False) -> None:
        """Append to the medium; the tokens of a ``group`` see each other."""
        begin = len(self.ids)
        self.starts += [begin] * len(ids) if group else range(begin, begin + len(ids))
        self.position_ids += range(begin, begin + len(ids))
        self.segments += [0] * len(ids)
        self.labels += [IGNORE] * len(ids)
        self.ids += ids

    def add_dialogues(self, dialogues: Sequence[tuple[list[int], list[int]]], length: int) -> None:
        """Append every dialogue (its ids and labels) that still fits into ``length`` tokens."""
        behind = len(self.ids)
        for number, (ids, labels) in enumerate(dialogues, start=1):
            begin = len(self.ids)
            if begin + len(ids) > length:
                continue
            # every dialogue takes the places right behind the medium
            self.position_ids += range(behind, behind + len(ids))
            self.starts += range(begin, begin + len(ids))
            self.segments += [number] * len(ids)
            self.labels += labels
            self.ids += ids


def collate(rows: Sequence[PackedRow], pad: int) -> PackedBatch:
    """A batch of rows; ``pad`` is the id that fills them up."""
    length = max(len(row.ids) for row in rows)

    def padded(name: str, value: int) -> Tensor:
        return torch.tensor([getattr(row, name) + [value] * (length - len(row.ids)) for row in rows])

    segments = padded("segments", -1)  # (B, S)
    starts = padded("starts", 0)  # (B, S)
    # the medium is seen by all, a dialogue by itself alone
    own = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    mask = masks.visible(starts, segments >= 0) & own[:, None]
    media = [medium for row in rows for medium in row.media]
    return PackedBatch(
        padded("ids", pad),
        (segments >= 0).long(),
        padded("labels", IGNORE),
        padded("position_ids", 0),
        mask,
        [tiles for tiles, _ in media],
        [size for _, size in media],
    )
