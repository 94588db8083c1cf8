"""Training batches of one fixed layout each, so that a compiled step is compiled once.

Understanding rows hold one picture or clip followed by several independent talks about it. Each talk sees the medium
and itself alone and its positions start right behind the medium, exactly as if it stood there on its own; one pass over
the medium teaches many answers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.model import masks
from core.processor.image import CLIP_MEAN, CLIP_STD
from core.training.scenes import render, sample_scene
from core.training.tasks import Exchange, exchanges, prompt, small_talk

ASPECTS = ((84, 84),) * 6 + ((63, 84), (84, 63), (48, 84), (84, 56))
TILE = 84
PATCHES = 36
IGNORE = -100


@dataclass
class TalkBatch:
    """``ids, labels, position_ids`` [B, S]; ``mask`` [B, 1, S, S]; ``tiles`` one [T, 3, 84, 84] a row with a medium."""

    ids: Tensor
    labels: Tensor
    position_ids: Tensor
    mask: Tensor
    tiles: list[Tensor]
    sizes: list[tuple[int, int] | None]  # picture (height, width); None for a clip


@dataclass
class NoiseBatch:
    """``ids`` and ``attention_mask`` [B, T] left-padded; ``latents`` [B, F, 16, h, w] scaled to unit variance."""

    ids: Tensor
    attention_mask: Tensor
    latents: Tensor


class Sentences:
    """Token ids of the few thousand sentences of the scenes' language, each encoded once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.image, self.video = (tokenizer.convert_tokens_to_ids(t) for t in ("<image>", "<video>"))
        self.pad = tokenizer.pad_token_id
        self.encode = lru_cache(maxsize=200_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def exchange(self, item: Exchange, opening: str = "") -> tuple[list[int], list[int]]:
        """Ids and labels from the question to the end of the answer; only the answer counts."""
        asked = self.encode(f"{opening}{item.question}<|im_end|>\n<|im_start|>assistant\n")
        answer, tail = self.encode(f"{item.answer}<|im_end|>"), self.encode("\n")
        return [*asked, *answer, *tail], [IGNORE] * len(asked) + list(answer) + [IGNORE] * len(tail)

    def prompt(self, text: str) -> tuple[int, ...]:
        """A generation prompt in its chat template."""
        return self.encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")


def normalise_frames(frames: np.ndarray) -> Tensor:
    """uint8 [T, h, w, 3] with h, w <= 84, one of them 84 -> [T, 3, 84, 84], centred on black, CLIP-normalised."""
    count, height, width, _ = frames.shape
    canvas = np.zeros((count, TILE, TILE, 3), np.float32)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    canvas[:, top : top + height, left : left + width] = frames
    canvas = (canvas / 255.0 - np.asarray(CLIP_MEAN, np.float32)) / np.asarray(CLIP_STD, np.float32)
    return torch.from_numpy(canvas.transpose(0, 3, 1, 2))


def picture_tokens(height: int, width: int) -> int:
    """Tokens of a picture that fits one tile: rows of patches, each closed by a newline (checked against the model)."""
    rows = 6 if height >= width else int(round(height * (6 / width), 7))
    columns = 6 if width >= height else int(round(width * (6 / height), 7))
    rows, columns = 6 - (6 - rows) // 2 * 2, 6 - (6 - columns) // 2 * 2
    return rows * (columns + 1)


def talk_batch(sentences: Sentences, rng: random.Random, rows: int, length: int, clip: bool) -> TalkBatch:
    """Rows of pictures (or clips) with as many talks as fit into ``length``; a few rows are small talk alone."""
    ids = torch.full((rows, length), sentences.pad)
    labels = torch.full((rows, length), IGNORE)
    position_ids, starts = torch.zeros(rows, length, dtype=torch.long), torch.arange(length).repeat(rows, 1)
    segments = torch.full((rows, length), -1)  # -1: padding, 0: medium, n: the n-th talk
    tiles: list[Tensor] = []
    sizes: list[tuple[int, int] | None] = []
    for row in range(rows):
        opening = list(sentences.encode("<|im_start|>user\n"))
        talks: list[list[Exchange]]
        if not clip and rng.random() < 0.04:
            talks = [[small_talk(rng)] for _ in range(12)]
        else:
            scene, frames, size = _draw(rng, clip)
            tiles.append(normalise_frames(frames))
            sizes.append(size)
            counts = [PATCHES] * len(frames) + [1] if size is None else [picture_tokens(*size)]
            for count in counts:
                begin = len(opening)
                opening += [sentences.video if size is None else sentences.image] * count
                starts[row, begin : begin + count] = begin
            opening += sentences.encode("\n")
            talks = exchanges(scene, rng, clip, 14)
        ids[row, : len(opening)] = torch.tensor(opening)
        position_ids[row, : len(opening)] = torch.arange(len(opening))
        segments[row, : len(opening)] = 0
        used = len(opening)
        for number, talk in enumerate(talks, start=1):
            words, targets = _talk(sentences, talk)
            if used + len(words) > length:
                continue
            place = slice(used, used + len(words))
            ids[row, place], labels[row, place] = torch.tensor(words), torch.tensor(targets)
            position_ids[row, place] = len(opening) + torch.arange(len(words))
            segments[row, place] = number
            used += len(words)
    mask = masks.visible(starts, segments >= 0)
    own = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    return TalkBatch(ids, labels, position_ids, mask & own[:, None], tiles, sizes)


def _draw(rng: random.Random, clip: bool):  # type: ignore[no-untyped-def]
    if clip:
        scene = sample_scene(rng)
        count = rng.choice((4, 4, 4, 4, 4, 3, 5, 2))
        frames = np.concatenate([render(scene, TILE, TILE, 9)])
        picks = np.round(np.linspace(0, 8, count)).astype(int)
        return scene, frames[picks], None
    # a picture shows no motion: one of a moving object is the middle of its clip
    scene = sample_scene(rng, count=1 if rng.random() < 0.7 else rng.randint(2, 4))
    size = rng.choice(ASPECTS)
    return scene, render(scene, *size, 1), size


def _talk(sentences: Sentences, talk: list[Exchange]) -> tuple[list[int], list[int]]:
    words, targets = sentences.exchange(talk[0])
    for item in talk[1:]:
        more, counted = sentences.exchange(item, opening="<|im_start|>user\n")
        words, targets = words + more, targets + counted
    return words, targets


def noise_batch(
    sentences: Sentences, rng: random.Random, latents: Tensor, scenes: list, rows: int, text_length: int, clip: bool
) -> NoiseBatch:
    """Cached clips (or pictures) with freshly worded prompts; one in ten prompts is empty, for guidance."""
    picks = [rng.randrange(len(scenes)) for _ in range(rows)]
    ids = torch.full((rows, text_length), sentences.pad)
    real = torch.zeros(rows, text_length, dtype=torch.long)
    for row, pick in enumerate(picks):
        text = "" if rng.random() < 0.1 else prompt(scenes[pick], rng, clip)
        words = sentences.prompt(text)[:text_length]
        ids[row, text_length - len(words) :] = torch.tensor(words)
        real[row, text_length - len(words) :] = 1
    return NoiseBatch(ids, real, latents[picks].float())
