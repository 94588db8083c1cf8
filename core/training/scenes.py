"""Procedural scenes: one to four coloured shapes on a background, at rest or on the move.

The world of the bundled model. A :class:`Scene` is a value (what is where, and what it does); :func:`render` draws it
at any size and length; :func:`sample_scene` draws a random one. Coordinates are fractions of the frame: x grows to
the right, y downwards, radii are fractions of the shorter side, time runs from 0 (first frame) to 1 (last frame).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.training.drawing import BACKGROUNDS, COLOURS, RGB, SHAPES, TEXTURES, blend, paint_background, shape_mask

MOTIONS = ("still", "left", "right", "up", "down", "growing", "shrinking", "entering", "leaving")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
RELATIONS = ("left of", "above", "in front of")
COUNT_WORDS = ("zero", "one", "two", "three", "four")
SLOW, FAST = (0.16, 0.24), (0.5, 0.62)  # travel of what moves slowly and quickly, as fractions of the frame
SMALL, BIG = 0.2, 0.25  # radii below and above which an object is small and big; between them nobody says

Combination = tuple[str, str, str]


@dataclass(frozen=True)
class SceneObject:
    """One shape. ``x, y, radius`` hold at the middle of the clip; ``travel`` is the whole path's length.

    ``heading`` is where an entering or leaving object goes.
    """

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    motion: str = "still"
    travel: float = 0.0
    rgb: RGB = (0, 0, 0)
    heading: str = ""

    def state(self, time: float) -> tuple[float, float, float]:
        """Centre x, centre y and radius at ``time`` in [0, 1]."""
        way = self.travel * (time - 0.5)
        direction = DIRECTIONS.get(self.heading or self.motion)
        if direction is not None:
            return self.x + direction[0] * way, self.y + direction[1] * way, self.radius
        if self.motion == "growing":
            return self.x, self.y, self.radius * (1.0 + way)
        if self.motion == "shrinking":
            return self.x, self.y, self.radius * (1.0 - way)
        return self.x, self.y, self.radius

    @property
    def size(self) -> str:
        """ "big", "small", or "" where nobody would say."""
        return "big" if self.radius >= BIG else "small" if self.radius <= SMALL else ""

    @property
    def speed(self) -> str:
        """ "slowly", "quickly", or "" where nobody would say."""
        if self.motion not in DIRECTIONS:
            return ""
        return "slowly" if self.travel <= SLOW[1] else "quickly" if self.travel >= FAST[0] else ""


@dataclass(frozen=True)
class Scene:
    """A background and its objects, nearest first; ``relation`` is that of the first object to the second."""

    background: str
    objects: tuple[SceneObject, ...]
    background_rgb: RGB
    texture: str = "plain"
    relation: str = ""


def is_held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether this combination is kept out of training: one in eight, spread evenly over every pair of attributes."""
    i, j, k = list(COLOURS).index(colour), SHAPES.index(shape), MOTIONS.index(motion)
    return (i + 2 * j + 3 * k) % 8 == 0


# whole pairs that training never shows, in no motion, clip or picture
UNSEEN_PAIRS = (("red", "heart"), ("yellow", "square"), ("blue", "ring"), ("pink", "triangle"))


def combinations(held_out: bool, pairs: bool = False) -> list[Combination]:
    """All (colour, shape, motion) of one side of the split, in a fixed order; ``pairs``: those of the unseen pairs."""
    every = [(c, s, m) for c in COLOURS for s in SHAPES for m in MOTIONS]
    if pairs:
        return [combination for combination in every if combination[:2] in UNSEEN_PAIRS]
    return [combination for combination in every if combination[:2] not in UNSEEN_PAIRS and is_held_out(*combination) == held_out]


def render(scene: Scene, height: int, width: int, num_frames: int = 1, times: Sequence[float] | None = None) -> np.ndarray:
    """Draw a scene: uint8 RGB [num_frames, height, width, 3]. One frame shows the middle of the clip.

    Args:
        times: these moments instead of ``num_frames`` evenly spaced ones.
    """
    if times is None:
        times = [0.5] if num_frames == 1 else [t / (num_frames - 1) for t in range(num_frames)]
    frames = np.empty((len(times), height, width, 3), np.uint8)
    frames[:] = paint_background(scene.background_rgb, scene.texture, height, width)
    side = min(height, width)
    for frame, time in zip(frames, times, strict=True):
        for item in reversed(scene.objects):
            x, y, radius = item.state(time)
            blend(frame, shape_mask(item.shape, x * width, y * height, radius * side, height, width), item.rgb)
    return frames


def object_masks(scene: Scene, height: int, width: int, time: float = 0.5) -> list[np.ndarray]:
    """What of each object can be seen at ``time``: coverage uint8 [H, W], what stands in front taken away."""
    side = min(height, width)
    masks: list[np.ndarray] = []
    free = np.full((height, width), 255, np.uint8)
    for item in scene.objects:
        x, y, radius = item.state(time)
        mask = shape_mask(item.shape, x * width, y * height, radius * side, height, width)
        masks.append(np.minimum(mask, free))
        free = np.minimum(free, 255 - mask)
    return masks


# -- drawing by lot


def _jitter(rgb: RGB, rng: random.Random, amount: int = 9) -> RGB:
    red, green, blue = (min(255, max(0, channel + rng.randint(-amount, amount))) for channel in rgb)
    return red, green, blue


def _between(rng: random.Random, reach: float) -> float:
    return rng.uniform(reach, 1.0 - reach)


def _single_radius(rng: random.Random, largest: float) -> float:
    """Mostly clearly small or clearly big, where the motion leaves room for both."""
    if largest <= BIG or rng.random() < 0.15:
        return rng.uniform(0.15, largest)
    return rng.uniform(0.14, SMALL) if rng.random() < 0.5 else rng.uniform(BIG + 0.01, largest)


def sample_object(
    combination: Combination, rng: random.Random, radius: float | None = None, aspect: tuple[float, float] = (1.0, 1.0)
) -> SceneObject:
    """One object of the given (colour, shape, motion), placed so that it stays inside the frame while it should.

    Args:
        radius: fixed, or None for a random one.
        aspect: the frame's (width, height) in units of its shorter side.
    """
    colour, shape, motion = combination
    rgb = _jitter(COLOURS[colour], rng)
    if motion in ("entering", "leaving"):
        return _crossing(combination, rng, radius or _single_radius(rng, 0.3), rgb, aspect)
    if motion in DIRECTIONS:
        travel = rng.choice((rng.uniform(*SLOW), rng.uniform(0.3, 0.44), rng.uniform(*FAST)))
        horizontal = DIRECTIONS[motion][0] != 0.0
        room = aspect[0] if horizontal else aspect[1]
        radius = radius or _single_radius(rng, min(0.32, (0.94 - travel) * room / 2.2))
        along, across = radius * 1.1 / room + travel / 2 + 0.01, radius * 1.1 / aspect[horizontal] + 0.01
        x, y = _between(rng, along if horizontal else across), _between(rng, across if horizontal else along)
        return SceneObject(colour, shape, x, y, radius, motion, travel, rgb)
    travel = 0.0
    if motion != "still":
        travel = rng.uniform(0.8, 1.1)
        radius = radius or _single_radius(rng, 0.28)
    radius = radius or _single_radius(rng, 0.36)
    reach = radius * (1 + travel / 2) * 1.1
    x, y = _between(rng, min(0.49, reach / aspect[0] + 0.01)), _between(rng, min(0.49, reach / aspect[1] + 0.01))
    return SceneObject(colour, shape, x, y, radius, motion, travel, rgb)


def _crossing(combination: Combination, rng: random.Random, radius: float, rgb: RGB, aspect: tuple[float, float]) -> SceneObject:
    """An object that comes in from outside and ends well inside, or the other way round."""
    colour, shape, motion = combination
    heading = rng.choice(list(DIRECTIONS))
    horizontal = DIRECTIONS[heading][0] != 0.0
    own, other = (aspect[0], aspect[1]) if horizontal else (aspect[1], aspect[0])
    outside, inside = -radius * 1.1 / own, max(rng.uniform(0.42, 0.58), radius * 1.1 / own)
    middle, travel = (outside + inside) / 2, inside - outside  # as if it came from the left or the top
    if motion == "leaving":
        middle = 1.0 - middle
    if heading in ("left", "up"):
        middle = 1.0 - middle
    across = _between(rng, min(0.49, radius * 1.1 / other + 0.01))
    x, y = (middle, across) if horizontal else (across, middle)
    return SceneObject(colour, shape, x, y, radius, motion, travel, rgb, heading)


_SPLIT = {side: combinations(side) for side in (False, True)}


@lru_cache
def _choices(held_out: bool, motion: str, pairs: bool) -> list[Combination]:
    pool = combinations(True, pairs=True) if pairs else _SPLIT[held_out]
    return [combination for combination in pool if combination[2] == motion]


def _distinct(rng: random.Random, motions: list[str], held_out: bool) -> list[Combination]:
    """One combination a motion, no colour and no shape twice."""
    while True:
        picked = [rng.choice(_choices(held_out, motion, False)) for motion in motions]
        if len({c for c, _, _ in picked}) == len({s for _, s, _ in picked}) == len(picked):
            return picked


def _arranged(rng: random.Random, clip: bool, held_out: bool, aspect: tuple[float, float]) -> tuple[str, list[SceneObject]]:
    """Two objects side by side, one above the other, or one in front of the other; they keep their relation all the time."""
    relation = rng.choice(RELATIONS)
    motions = ["still", "still"]
    if clip and relation != "in front of":
        ways = ("up", "down") if relation == "left of" else ("left", "right")
        motions = [rng.choice(("still", "still", *ways)) for _ in range(2)]
    combos = _distinct(rng, motions, held_out)
    if relation == "in front of":
        return relation, _overlapping(rng, combos, aspect)
    items = []
    for place, (combination, motion) in enumerate(zip(combos, motions, strict=True)):
        colour, shape, _ = combination
        radius, travel = rng.uniform(0.13, 0.2), rng.uniform(0.28, 0.46) if motion != "still" else 0.0
        along = 0.5 + (place - 0.5) * rng.uniform(0.46, 0.56)
        across = _between(rng, min(0.49, radius * 1.1 / aspect[relation == "left of"] + travel / 2 + 0.01))
        x, y = (along, across) if relation == "left of" else (across, along)
        items.append(SceneObject(colour, shape, x, y, radius, motion, travel, _jitter(COLOURS[colour], rng)))
    return relation, items


def _overlapping(rng: random.Random, combos: list[Combination], aspect: tuple[float, float]) -> list[SceneObject]:
    """The first covers a side of the larger second."""
    radii = rng.uniform(0.14, 0.18), rng.uniform(0.2, 0.25)
    x, y = rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58)
    away = rng.choice((-1, 1)) * rng.uniform(0.85, 1.05) * radii[1] / aspect[0], rng.uniform(-0.08, 0.08)
    items = []
    for (colour, shape, _), radius, sign in zip(combos, radii, (0.6, -0.4), strict=True):
        place = x + sign * away[0], y + sign * away[1]
        items.append(SceneObject(colour, shape, *place, radius, "still", 0.0, _jitter(COLOURS[colour], rng)))
    return items


def _scattered(rng: random.Random, count: int, held_out: bool, aspect: tuple[float, float]) -> list[SceneObject]:
    """Still objects that do not touch."""
    objects: list[SceneObject] = []
    while len(objects) < count:
        objects = []
        for _ in range(60):
            combo = rng.choice(_choices(held_out, "still", False))
            item = sample_object(combo, rng, radius=rng.uniform(0.12, 0.18), aspect=aspect)
            if all(_far_apart(item, other, aspect) for other in objects):
                objects.append(item)
            if len(objects) == count:
                break
    return objects


def _far_apart(a: SceneObject, b: SceneObject, aspect: tuple[float, float]) -> bool:
    across, down = (a.x - b.x) * aspect[0], (a.y - b.y) * aspect[1]
    return across**2 + down**2 > (1.2 * (a.radius + b.radius)) ** 2


def aspect_of(height: int, width: int) -> tuple[float, float]:
    """A frame's (width, height) in units of its shorter side."""
    side = min(height, width)
    return width / side, height / side


def sample_scene(
    rng: random.Random,
    count: int = 1,
    held_out: bool = False,
    motion: str | None = None,
    background: str | None = None,
    aspect: tuple[float, float] = (1.0, 1.0),
    clip: bool = True,
    pairs: bool = False,
) -> Scene:
    """A random scene of ``count`` objects.

    Args:
        rng: the only source of chance.
        count: objects, 1 to 4; two stand in a relation and may move, three and four are still and do not touch.
        held_out: take combinations from the held-out side of the split.
        motion: fix a single object's motion; None draws one.
        background: fix the background's name, and make it plain; None draws both.
        aspect: the frame's (width, height) in units of its shorter side.
        clip: False keeps two objects still.
        pairs: take a single object of the unseen pairs.
    """
    name = background or rng.choice(list(BACKGROUNDS))
    texture = "plain" if background or rng.random() < 0.6 else rng.choice(TEXTURES[1:])
    ground = _jitter(BACKGROUNDS[name], rng, 5)
    if count == 2:
        relation, items = _arranged(rng, clip, held_out, aspect)
        return Scene(name, tuple(items), ground, texture, relation)
    if count == 1:
        wanted = motion or rng.choice(MOTIONS)
        item = sample_object(rng.choice(_choices(held_out, wanted, pairs)), rng, aspect=aspect)
        return Scene(name, (item,), ground, texture)
    return Scene(name, tuple(_scattered(rng, count, held_out, aspect)), ground, texture)
