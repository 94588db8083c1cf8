"""One random object: where it is, how large, and which way it goes, so that it can be seen."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache
from math import cos, pi, sin

from core.scenes.motions import DIRECTIONS, FAST, SLOW, STRAIGHT, SWING
from core.scenes.rasterizer import COLOURS, RGB, jitter
from core.scenes.scene import (
    BIG,
    SMALL,
    UNSEEN_PAIRS,
    Combination,
    SceneObject,
    backgrounds_for,
    combinations,
)

Aspect = tuple[float, float]
SQUARE: Aspect = (1.0, 1.0)


@lru_cache(maxsize=256)
def choices(held_out: bool, motion: str, pairs: bool) -> tuple[Combination, ...]:
    """All combinations of one motion on one side of the split."""
    pool = combinations(True, pairs=True) if pairs else combinations(held_out)
    return tuple(combination for combination in pool if combination[2] == motion)


def between(rng: random.Random, reach: float) -> float:
    """A coordinate that stays ``reach`` away from both borders."""
    reach = min(0.49, reach)
    return rng.uniform(reach, 1.0 - reach)


def _single_radius(rng: random.Random, largest: float) -> float:
    """Mostly clearly small or clearly big, where the motion leaves room for both."""
    if largest <= BIG or rng.random() < 0.15:
        return rng.uniform(0.13, largest)
    return rng.uniform(0.13, SMALL) if rng.random() < 0.5 else rng.uniform(BIG + 0.01, largest)


def sample_object(
    combination: Combination, rng: random.Random, radius: float | None = None, aspect: Aspect = SQUARE
) -> SceneObject:
    """One object of the given (colour, shape, motion), inside the frame as long as it should be.

    Args:
        radius: fixed, or None for a random one.
        aspect: the frame's (width, height) in units of its shorter side.
    """
    colour, shape, motion = combination
    rgb = jitter(COLOURS[colour], rng)
    if motion in ("entering", "leaving"):
        return _crossing(combination, rng, radius or _single_radius(rng, 0.3), rgb, aspect)
    if motion in STRAIGHT:
        return _travelling(combination, rng, radius, rgb, aspect)
    if motion in ("circling", "bouncing", "zigzagging"):
        return _on_a_path(combination, rng, radius or rng.uniform(0.13, 0.2), rgb, aspect)
    travel = 0.0
    if motion in ("growing", "shrinking"):
        travel = rng.uniform(0.8, 1.1)
        radius = radius or _single_radius(rng, 0.28)
    radius = radius or _single_radius(rng, 0.36)
    reach = radius * (1 + travel / 2) * 1.1
    x = between(rng, reach / aspect[0] + 0.01)
    y = between(rng, reach / aspect[1] + 0.01)
    made = SceneObject(colour, shape, x, y, radius, motion, travel, rgb)
    return _changing(made, rng) if motion == "changing" else made


def _changing(item: SceneObject, rng: random.Random) -> SceneObject:
    """The object with a colour to turn to: some background serves both, and no unseen pair comes of it."""
    others = [
        name
        for name in COLOURS
        if name != item.colour
        and (name, item.shape) not in UNSEEN_PAIRS
        and backgrounds_for([name, item.colour])
    ]
    becomes = rng.choice(others)
    return replace(item, becomes=becomes, becomes_rgb=jitter(COLOURS[becomes], rng))


def _travelling(
    combination: Combination, rng: random.Random, radius: float | None, rgb: RGB, aspect: Aspect
) -> SceneObject:
    """An object that goes straight on, along an axis or slantwise."""
    colour, shape, motion = combination
    travel = rng.choice((rng.uniform(*SLOW), rng.uniform(0.3, 0.44), rng.uniform(*FAST)))
    across, down = (abs(part) * travel for part in STRAIGHT[motion])
    room = min((0.94 - across) * aspect[0], (0.94 - down) * aspect[1])
    radius = radius or _single_radius(rng, min(0.32, room / 2.2))
    x = between(rng, radius * 1.1 / aspect[0] + across / 2 + 0.01)
    y = between(rng, radius * 1.1 / aspect[1] + down / 2 + 0.01)
    return SceneObject(colour, shape, x, y, radius, motion, travel, rgb)


def _on_a_path(
    combination: Combination, rng: random.Random, radius: float, rgb: RGB, aspect: Aspect
) -> SceneObject:
    """An object that goes round, bounces, or zigzags."""
    colour, shape, motion = combination
    wide = radius * 1.1 / aspect[0] + 0.01
    high = radius * 1.1 / aspect[1] + 0.01
    if motion == "circling":
        travel = rng.uniform(0.18, 0.26)
        phase = rng.random()
        x = between(rng, wide + travel) + travel * cos(2 * pi * phase)
        y = between(rng, high + travel) + travel * sin(2 * pi * phase)
        return SceneObject(colour, shape, x, y, radius, motion, travel, rgb, phase=phase)
    if motion == "bouncing":
        travel = rng.uniform(0.3, 0.5)
        y = rng.uniform(min(1 - high, high + travel), 1 - high)
        return SceneObject(colour, shape, between(rng, wide), y, radius, motion, travel, rgb)
    heading = rng.choice(list(DIRECTIONS))
    travel = rng.uniform(0.44, 0.56)
    along = DIRECTIONS[heading][0] != 0.0
    x = between(rng, wide + (travel / 2 if along else SWING))
    y = between(rng, high + (SWING if along else travel / 2))
    return SceneObject(colour, shape, x, y, radius, motion, travel, rgb, heading)


def _crossing(
    combination: Combination, rng: random.Random, radius: float, rgb: RGB, aspect: Aspect
) -> SceneObject:
    """An object that comes in from outside and ends well inside, or the other way round."""
    colour, shape, motion = combination
    heading = rng.choice(list(DIRECTIONS))
    horizontal = DIRECTIONS[heading][0] != 0.0
    own, other = (aspect[0], aspect[1]) if horizontal else (aspect[1], aspect[0])
    # an outline, a tilt or a soft edge reaches a little further than the radius
    outside = -radius * 1.2 / own
    inside = max(rng.uniform(0.42, 0.58), radius * 1.1 / own)
    # as if it came from the left or the top
    middle = (outside + inside) / 2
    travel = inside - outside
    if motion == "leaving":
        middle = 1.0 - middle
    if heading in ("left", "up"):
        middle = 1.0 - middle
    across = between(rng, radius * 1.1 / other + 0.01)
    x, y = (middle, across) if horizontal else (across, middle)
    return SceneObject(colour, shape, x, y, radius, motion, travel, rgb, heading)
