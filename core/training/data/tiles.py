"""Pictures and clips of drawn scenes, as the vision encoder reads them: tiles of patches."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from core.model.anyres import plan_grid
from core.opencv import cv2
from core.processor.image import CLIP_MEAN, CLIP_STD
from core.scenes.arrangements import sample_scene
from core.scenes.motions import PICTURE_MOTIONS
from core.scenes.rasterizer import augment
from core.scenes.scene import Scene, aspect_of, render

TILE = 84  # pixels along a side
PATCH = 14  # pixels along a side
PATCHES = (TILE // PATCH) ** 2  # of a tile
NARROWEST = 40  # pixels of a picture's shorter side when the longer one fills the tile


def normalize_frames(frames: np.ndarray) -> Tensor:
    """Frames on tiles, centred on black, normalized as CLIP's are.

    Args:
        frames: uint8 [T, h, w, 3] with h and w at most 84, one of them 84.

    Returns:
        float32 [T, 3, 84, 84].
    """
    count, height, width, _ = frames.shape
    canvas = np.zeros((count, TILE, TILE, 3), np.float32)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    canvas[:, top : top + height, left : left + width] = frames
    normal = (canvas / 255.0 - np.asarray(CLIP_MEAN, np.float32)) / np.asarray(CLIP_STD, np.float32)
    return torch.from_numpy(normal.transpose(0, 3, 1, 2))


def picture_tokens(height: int, width: int) -> int:
    """Tokens of a picture of this size on one tile: rows of patches, each closed by a newline."""
    return plan_grid((height, width), [[TILE, TILE]], TILE, TILE // PATCH, 1).num_tokens


def draw_picture(
    rng: random.Random, held_out: bool = False, pair: bool = False
) -> tuple[Scene, np.ndarray, tuple[int, int]]:
    """A random picture, as it lands on the tile.

    Moving objects are drawn in the middle of their way.
    So pictures show every pair of colour and shape that clips show.

    Args:
        rng: the only source of chance.
        held_out: combinations that training never uses.
        pair: of two things.

    Returns:
        The scene, its picture uint8 [1, h, w, 3], and (h, w).
    """
    height = width = TILE
    if rng.random() < 0.4:
        short = rng.randint(NARROWEST, TILE)
        height, width = (short, TILE) if rng.random() < 0.5 else (TILE, short)
    count = 2 if pair else rng.choice((1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5, 6))
    motion = rng.choice(PICTURE_MOTIONS)
    aspect = aspect_of(height, width)
    scene = sample_scene(rng, count, held_out, motion, aspect=aspect, clip=False, varied=True)
    return scene, augment(render(scene, height, width), rng), (height, width)


def draw_clip(rng: random.Random, held_out: bool = False) -> tuple[Scene, np.ndarray]:
    """A random scene and frames of its clip uint8 [T, 84, 84, 3], squeezed as the video processor does."""
    height, width = rng.choice(((TILE, TILE),) * 4 + ((TILE, 126), (126, TILE)))
    count = rng.choice((1, 1, 1, 1, 2, 2, 3))
    scene = sample_scene(rng, count, held_out, aspect=aspect_of(height, width), varied=True)
    # some of the nine moments that a clip to generate shows
    num_frames = rng.choice((4, 4, 4, 4, 4, 3, 5, 6))
    times = [round(float(place)) / 8 for place in np.linspace(0, 8, num_frames)]
    frames = render(scene, height, width, times=times)
    if (height, width) != (TILE, TILE):
        frames = np.stack([cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA) for frame in frames])
    return scene, augment(frames, rng)
