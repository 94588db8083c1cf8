"""What the autoencoder is trained and measured on: parts of random clips, some of them hard."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from core.scenes.arrangements import crossing_scene, sample_scene
from core.scenes.motions import FAST, PATHS, STRAIGHT
from core.scenes.rasterizer import dilated
from core.scenes.scene import Scene, aspect_of, drawn_pixels, render

FRAMES = 9
FOREGROUND_WEIGHT = 3.0
RIM = 9  # pixels: holes and notches this wide count as much as the objects
HARD = 0.25  # of the clips show something small, quick or covered


def random_scene(rng: random.Random, height: int = 128, width: int = 128) -> Scene:
    """Mostly one object or two, in any motion and any look; sometimes more."""
    count = rng.choice((1, 1, 1, 1, 2, 2, 3, 4))
    return sample_scene(rng, count=count, aspect=aspect_of(height, width), varied=rng.random() < 0.6)


def hard_scene(rng: random.Random, height: int, width: int) -> Scene:
    """What is hard to encode: something small and quick, or things that cover each other on their ways."""
    aspect = aspect_of(height, width)
    if rng.random() < 0.4:
        return crossing_scene(rng, aspect)
    motion = rng.choice((*STRAIGHT, *PATHS))
    scene = sample_scene(rng, motion=motion, aspect=aspect, varied=rng.random() < 0.5)
    item = scene.objects[0]
    travel = max(item.travel, FAST[0]) if motion in STRAIGHT else item.travel
    return replace(scene, objects=(replace(item, radius=rng.uniform(0.08, 0.15), travel=travel),))


def training_clip(
    rng: random.Random, size: tuple[int, int], crop: int, num_frames: int = FRAMES
) -> tuple[Tensor, Tensor]:
    """A part of a random clip, around a point of an object's path, where the hard pixels are.

    The objects' surroundings weigh as much as the objects.
    Weighting these alone fills the holes of rings and the notches of stars.

    Args:
        size: (height, width) in pixels that the scene is drawn at.
        crop: pixels along the part's sides.

    Returns:
        The part [3, T, crop, crop] in [-1, 1], and its pixels' weights [1, T, crop, crop].
    """
    height, width = size
    sample = hard_scene if rng.random() < HARD else random_scene
    scene = sample(rng, height, width)
    frames = render(scene, height, width, num_frames)
    item = rng.choice(scene.objects)
    x, y, radius = item.state(rng.random())
    left = int(np.clip((x + rng.uniform(-1, 1) * radius) * width - crop / 2, 0, width - crop))
    top = int(np.clip((y + rng.uniform(-1, 1) * radius) * height - crop / 2, 0, height - crop))
    drawn = drawn_pixels(scene, frames)
    drawn, frames = (whole[:, top : top + crop, left : left + crop] for whole in (drawn, frames))
    near = dilated(drawn, RIM)
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float() / 127.5 - 1.0
    return video, torch.from_numpy(1.0 + FOREGROUND_WEIGHT * near.astype(np.float32))[None]
