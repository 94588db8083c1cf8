"""Training batches. Every row is drawn by its own number, so any process can draw its share of a batch alone.

Understanding rows hold one picture or clip (or, for the language prior, its description) followed by several
independent talks about it. Each talk sees the medium and itself alone and its positions start right behind the medium,
exactly as if it stood there on its own; one pass over the medium teaches many answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.model import masks
from core.model.anyres import plan_grid
from core.processor.image import CLIP_MEAN, CLIP_STD
from core.training.drawing import photograph
from core.training.scenes import MOTIONS, Scene, aspect_of, render, sample_scene
from core.training.tasks import PLACE_KINDS, Exchange, exchanges, prompt, small_talk
from core.training.wording import caption, description, sentence

TILE = 84
PATCH = 14
PATCHES = (TILE // PATCH) ** 2
NARROWEST = 40  # pixels of a picture's shorter side when the longer one fills the tile
IGNORE = -100
# an entering or leaving object may not be there in the middle of its clip
PICTURE_MOTIONS = tuple(motion for motion in MOTIONS if motion not in ("entering", "leaving"))


class Medium(Enum):
    """What a talk is about."""

    PICTURE = "picture"
    PAIR = "picture of two things"
    CLIP = "clip"
    WORDS = "words"


@dataclass
class TalkBatch:
    """``ids, labels, position_ids`` [B, S]; ``mask`` [B, 1, S, S]; ``tiles`` one [T, 3, 84, 84] a row with a medium."""

    ids: Tensor
    labels: Tensor
    position_ids: Tensor
    mask: Tensor
    tiles: list[Tensor]
    sizes: list[tuple[int, int] | None]  # picture (height, width); None for a clip

    @property
    def count(self) -> int:
        """Tokens whose prediction counts."""
        return int((self.labels[:, 1:] != IGNORE).sum())


@dataclass
class NoiseBatch:
    """``ids`` and ``attention_mask`` [B, T] left-padded; ``latents, noise`` [B, F, 16, h, w]; ``timestep`` [B]."""

    ids: Tensor
    attention_mask: Tensor
    latents: Tensor
    noise: Tensor
    timestep: Tensor

    @property
    def count(self) -> int:
        """Rows."""
        return len(self.latents)


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

    def talk(self, talk: Sequence[Exchange]) -> tuple[list[int], list[int]]:
        """Ids and labels of all turns."""
        words, targets = self.exchange(talk[0])
        for item in talk[1:]:
            more, counted = self.exchange(item, opening="<|im_start|>user\n")
            words, targets = words + more, targets + counted
        return words, targets

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
    """Tokens of a picture of this size on one tile: rows of patches, each closed by a newline."""
    return plan_grid((height, width), [[TILE, TILE]], TILE, TILE // PATCH, 1).num_tokens


# -- talks


@dataclass
class TalkRow:
    """One row before padding; ``segments``: 0 for the medium, n for the n-th talk."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    media: list[tuple[Tensor, tuple[int, int] | None]] = field(default_factory=list)  # tiles; (height, width) of a picture

    def open(self, ids: Sequence[int], group: bool = False) -> None:
        """Append to the medium; the tokens of a ``group`` see each other."""
        begin = len(self.ids)
        self.starts += [begin] * len(ids) if group else range(begin, begin + len(ids))
        self.position_ids += range(begin, begin + len(ids))
        self.segments += [0] * len(ids)
        self.labels += [IGNORE] * len(ids)
        self.ids += ids

    def add_talks(self, talks: Sequence[tuple[list[int], list[int]]], length: int) -> None:
        """Append every talk that still fits into ``length`` tokens."""
        behind = len(self.ids)
        for number, (words, targets) in enumerate(talks, start=1):
            begin = len(self.ids)
            if begin + len(words) > length:
                continue
            self.starts += range(begin, begin + len(words))
            self.position_ids += range(behind, behind + len(words))
            self.segments += [number] * len(words)
            self.labels += targets
            self.ids += words


def draw_picture(rng: random.Random, held_out: bool = False, pair: bool = False) -> tuple[Scene, np.ndarray, tuple[int, int]]:
    """A scene (``pair``: of two things), its picture as it lands on the tile uint8 [1, h, w, 3], and (h, w).

    Moving objects are drawn in the middle of their way: a picture shows every pair of colour and shape that clips show.
    """
    height = width = TILE
    if rng.random() < 0.4:
        short = rng.randint(NARROWEST, TILE)
        height, width = (short, TILE) if rng.random() < 0.5 else (TILE, short)
    count = rng.choice((1, 1, 1, 1, 2, 2, 2, 2, 3, 4)) if not pair else 2
    motion, aspect = rng.choice(PICTURE_MOTIONS), aspect_of(height, width)
    scene = sample_scene(rng, count, held_out, motion, aspect=aspect, clip=False)
    return scene, photograph(render(scene, height, width), rng), (height, width)


def draw_clip(rng: random.Random, held_out: bool = False) -> tuple[Scene, np.ndarray]:
    """A scene and some frames of its clip, squeezed to the tile as the video processor does: uint8 [T, 84, 84, 3]."""
    height, width = rng.choice(((TILE, TILE),) * 4 + ((TILE, 126), (126, TILE)))
    scene = sample_scene(rng, rng.choice((1, 1, 1, 1, 2, 2, 3)), held_out, aspect=aspect_of(height, width))
    count = rng.choice((4, 4, 4, 4, 4, 3, 5, 6))
    frames = render(scene, height, width, times=np.round(np.linspace(0, 8, count)) / 8)
    if (height, width) != (TILE, TILE):
        frames = np.stack([cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA) for frame in frames])
    return scene, photograph(frames, rng)


def talk_row(sentences: Sentences, rng: random.Random, length: int, medium: Medium, held_out: bool = False) -> TalkRow:
    """A picture, a clip or a description with as many talks as fit; a few rows are small talk alone.

    Args:
        held_out: combinations and phrasings that training never uses.
    """
    row = TalkRow()
    row.open(sentences.encode("<|im_start|>user\n"))
    if medium is not Medium.CLIP and not held_out and rng.random() < 0.05:
        row.add_talks([sentences.talk([small_talk(rng)]) for _ in range(14)], length)
        return row
    clip, pair = medium is Medium.CLIP, medium is Medium.PAIR
    if medium is Medium.WORDS:
        clip = rng.random() < 0.5
        motion = None if clip else rng.choice(PICTURE_MOTIONS)
        scene = sample_scene(rng, rng.choice((1, 1, 2, 2, 2, 3, 3, 4)), held_out, motion, clip=clip)
        row.open(sentences.encode(f"{description(scene, clip)}\n"))
    elif clip:
        scene, frames = draw_clip(rng, held_out)
        row.media.append((normalise_frames(frames), None))
        for _ in frames:
            row.open([sentences.video] * PATCHES, group=True)
        row.open([sentences.video, *sentences.encode("\n")])
    else:
        scene, frames, size = draw_picture(rng, held_out, pair)
        row.media.append((normalise_frames(frames), size))
        row.open([sentences.image] * picture_tokens(*size), group=True)
        row.open(sentences.encode("\n"))
    talks = exchanges(scene, rng, clip, 14, held_out, PLACE_KINDS if pair else None)
    row.add_talks([sentences.talk(talk) for talk in talks], length)
    return row


def prompt_row(sentences: Sentences, rng: random.Random, length: int) -> TalkRow:
    """Prompts answered with the plain caption: the language prior learns what prompts mean."""
    row, talks = TalkRow(), []
    row.open(sentences.encode("<|im_start|>user\n"))
    for _ in range(8):
        clip = rng.random() < 0.6
        motion = None if clip else rng.choice(PICTURE_MOTIONS)
        scene = sample_scene(rng, rng.choice((1, 1, 2, 2, 3)), motion=motion, clip=clip)
        said = sentence(caption(scene, clip, size=True, speed=True))
        talks.append(sentences.talk([Exchange("prompt", prompt(scene, rng, clip), said, said)]))
    row.add_talks(talks, length)
    return row


def collate_talks(rows: Sequence[TalkRow], pad: int) -> TalkBatch:
    """Rows padded on the right to the longest."""
    length = max(len(row.ids) for row in rows)

    def padded(name: str, value: int) -> Tensor:
        return torch.tensor([getattr(row, name) + [value] * (length - len(row.ids)) for row in rows])

    segments, starts = padded("segments", -1), padded("starts", 0)
    own = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    mask = masks.visible(starts, segments >= 0) & own[:, None]
    media = [medium for row in rows for medium in row.media]
    return TalkBatch(
        padded("ids", pad),
        padded("labels", IGNORE),
        padded("position_ids", 0),
        mask,
        [tiles for tiles, _ in media],
        [size for _, size in media],
    )


# -- noise


def noise_rows(
    sentences: Sentences, rngs: Sequence[random.Random], latents: Tensor, texts: Sequence[str], bands: Sequence[float]
) -> NoiseBatch:
    """Latents [B, F, 16, h, w] with their prompts, noise and timesteps.

    Args:
        rngs: one a row; draws its noise.
        bands: one a row in [0, 1): its timestep as a fraction of the schedule.
    """
    words = [sentences.prompt(text) for text in texts]
    length = max(map(len, words))
    ids = torch.tensor([[sentences.pad] * (length - len(w)) + list(w) for w in words])
    real = torch.tensor([[0] * (length - len(w)) + [1] * len(w) for w in words])
    noise = torch.stack(
        [torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(rng.getrandbits(60))) for rng in rngs]
    )
    timestep = torch.tensor([int(1000 * band) for band in bands])
    return NoiseBatch(ids, real, latents.float(), noise, timestep)
