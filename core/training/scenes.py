"""Procedural scenes: coloured shapes that rest, move, grow or shrink on a plain background.

The world of the bundled model. A :class:`Scene` is a value (what is where, and what it does); :func:`render` draws it
at any size and length; :func:`sample_scene` draws a random one. Coordinates are fractions of the frame: x grows to
the right, y downwards, radii are fractions of the shorter side, time runs from 0 (first frame) to 1 (last frame).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import cv2
import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 38),
    "orange": (245, 136, 24),
    "yellow": (248, 222, 48),
    "green": (44, 168, 66),
    "blue": (48, 104, 236),
    "purple": (144, 58, 196),
    "pink": (250, 150, 196),
    "white": (246, 246, 246),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "gray": (122, 122, 122),
    "brown": (104, 66, 36),
    "navy": (20, 26, 84),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
MOTIONS = ("still", "left", "right", "up", "down", "growing", "shrinking")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
COUNT_WORDS = ("zero", "one", "two", "three", "four")
BIG_RADIUS = 0.25  # at and above: "big"
RING_HOLE = 0.55  # inner radius of a ring as a fraction of the outer one


@dataclass(frozen=True)
class SceneObject:
    """One shape. ``x, y, radius`` hold at the middle of the clip; ``travel`` is the whole path's length."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    motion: str = "still"
    travel: float = 0.0
    rgb: tuple[int, int, int] = (0, 0, 0)

    def state(self, time: float) -> tuple[float, float, float]:
        """Centre x, centre y and radius at ``time`` in [0, 1]."""
        if self.motion in DIRECTIONS:
            dx, dy = DIRECTIONS[self.motion]
            return self.x + dx * self.travel * (time - 0.5), self.y + dy * self.travel * (time - 0.5), self.radius
        if self.motion == "growing":
            return self.x, self.y, self.radius * (1.0 + self.travel * (time - 0.5))
        if self.motion == "shrinking":
            return self.x, self.y, self.radius * (1.0 - self.travel * (time - 0.5))
        return self.x, self.y, self.radius

    @property
    def size(self) -> str:
        """ "big" or "small"."""
        return "big" if self.radius >= BIG_RADIUS else "small"


@dataclass(frozen=True)
class Scene:
    """A background and its objects, in drawing order."""

    background: str
    objects: tuple[SceneObject, ...]
    background_rgb: tuple[int, int, int]


def is_held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether this combination is kept out of training: one in eight, spread evenly over every pair of attributes."""
    i, j, k = list(COLOURS).index(colour), SHAPES.index(shape), MOTIONS.index(motion)
    return (i + 2 * j + 3 * k) % 8 == 0


def combinations(held_out: bool) -> list[tuple[str, str, str]]:
    """All (colour, shape, motion) of one side of the split, in a fixed order."""
    return [(c, s, m) for c in COLOURS for s in SHAPES for m in MOTIONS if is_held_out(c, s, m) == held_out]


def _polygons(shape: str) -> list[np.ndarray]:
    """Contours of a shape in the unit circle, each [K, 2]; several contours follow the even-odd rule."""
    turn = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
    circle = np.stack([np.sin(turn), -np.cos(turn)], axis=1)
    if shape == "circle":
        return [circle]
    if shape == "ring":
        return [circle, circle * RING_HOLE]
    if shape == "square":
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.82]
    if shape == "triangle":
        return [np.array([[0.0, -1.0], [0.95, 0.8], [-0.95, 0.8]])]
    if shape == "star":
        angle = np.arange(10) * np.pi / 5.0
        reach = np.where(np.arange(10) % 2 == 0, 1.1, 0.45)
        return [np.stack([np.sin(angle) * reach, -np.cos(angle) * reach], axis=1)]
    if shape == "heart":
        x = 16 * np.sin(turn) ** 3
        y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn))
        return [np.stack([x, y - 2.0], axis=1) / 16.0]
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


POLYGONS = {shape: _polygons(shape) for shape in SHAPES}


def shape_mask(shape: str, x: float, y: float, radius: float, height: int, width: int) -> np.ndarray:
    """Anti-aliased coverage of one shape, uint8 [H, W]; ``x, y, radius`` in pixels."""
    mask = np.zeros((height, width), np.uint8)
    contours = [np.round((p * radius + (x, y)) * 16).astype(np.int32) for p in POLYGONS[shape]]
    cv2.fillPoly(mask, contours, 255, lineType=cv2.LINE_AA, shift=4)
    return mask


def render(scene: Scene, height: int, width: int, num_frames: int = 1) -> np.ndarray:
    """Draw a scene: uint8 RGB [num_frames, height, width, 3]. One frame shows the middle of the clip."""
    times = [0.5] if num_frames == 1 else [t / (num_frames - 1) for t in range(num_frames)]
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = scene.background_rgb
    side = min(height, width)
    for frame, time in zip(frames, times, strict=True):
        for item in scene.objects:
            x, y, radius = item.state(time)
            mask = shape_mask(item.shape, x * width, y * height, radius * side, height, width)
            alpha = mask[..., None].astype(np.uint16)
            frame[:] = (frame * (255 - alpha) + np.asarray(item.rgb, np.uint16) * alpha + 127) // 255
    return frames


def _jitter(rgb: tuple[int, int, int], rng: random.Random, amount: int = 9) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, channel + rng.randint(-amount, amount))) for channel in rgb)
    return red, green, blue


def sample_object(combination: tuple[str, str, str], rng: random.Random, radius: float | None = None) -> SceneObject:
    """One object of the given (colour, shape, motion), placed so that it stays inside the frame all the time."""
    colour, shape, motion = combination
    rgb = _jitter(COLOURS[colour], rng)
    if motion in DIRECTIONS:
        radius = radius or rng.uniform(0.15, 0.27)
        travel = rng.uniform(0.3, min(0.55, 0.94 - 2.2 * radius))
        along, across = radius * 1.1 + travel / 2 + 0.01, radius * 1.1 + 0.01
        horizontal = DIRECTIONS[motion][0] != 0.0
        reach_x, reach_y = (along, across) if horizontal else (across, along)
        x, y = rng.uniform(reach_x, 1 - reach_x), rng.uniform(reach_y, 1 - reach_y)
        return SceneObject(colour, shape, x, y, radius, motion, travel, rgb)
    travel = 0.0
    if motion != "still":
        travel = rng.uniform(0.8, 1.1)
        radius = radius or rng.uniform(0.16, 0.27)
    radius = radius or rng.uniform(0.15, 0.36)
    reach = radius * (1 + travel / 2) * 1.1 + 0.01
    x, y = rng.uniform(reach, 1 - reach), rng.uniform(reach, 1 - reach)
    return SceneObject(colour, shape, x, y, radius, motion, travel, rgb)


def sample_scene(
    rng: random.Random, count: int = 1, held_out: bool = False, motion: str | None = None, background: str | None = None
) -> Scene:
    """A random scene of ``count`` objects that do not touch.

    Args:
        rng: the only source of chance.
        count: objects, 1 to 4; more than one are always still.
        held_out: take combinations from the held-out side of the split.
        motion: fix the motion (``"still"`` for pictures); None draws one.
        background: fix the background's name; None draws one.
    """
    name = background or rng.choice(list(BACKGROUNDS))
    background_rgb = _jitter(BACKGROUNDS[name], rng, 5)
    wanted = "still" if count > 1 else motion
    if wanted is None:
        wanted = rng.choice(MOTIONS)
    choices = [c for c in _SPLIT[held_out] if c[2] == wanted]
    if count == 1:
        return Scene(name, (sample_object(rng.choice(choices), rng),), background_rgb)
    objects: list[SceneObject] = []
    while len(objects) < count:
        objects = []
        for _ in range(60):
            item = sample_object(rng.choice(choices), rng, radius=rng.uniform(0.12, 0.19))
            if all((item.x - o.x) ** 2 + (item.y - o.y) ** 2 > (1.2 * (item.radius + o.radius)) ** 2 for o in objects):
                objects.append(item)
            if len(objects) == count:
                break
    return Scene(name, tuple(objects), background_rgb)


_SPLIT = {side: combinations(side) for side in (False, True)}
