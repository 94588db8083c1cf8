"""Procedural scenes: one to six coloured shapes on a background, at rest or on the move.

The world of the bundled model. A :class:`Scene` is a value: what is where, and what it does.
:func:`render` draws it at any size and length.
:func:`core.scenes.arrangements.sample_scene` makes a random one.

Coordinates are fractions of the frame, x to the right and y downwards.
Radii are fractions of its shorter side; time runs from 0 (first frame) to 1 (last frame).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.scenes.looks import PLAIN, Look, draw_shape
from core.scenes.motions import FAST, MOTIONS, SLOW, STRAIGHT, growth, offset, turned
from core.scenes.rasterizer import BACKGROUNDS, COLOURS, RGB, SHAPES, VISIBLE, paint_background, shape_mask

RELATIONS = ("left of", "above", "in front of")
COUNT_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
SMALL = 0.2  # a smaller radius is "small"
BIG = 0.25  # a larger one is "big"; between the two nobody says

Combination = tuple[str, str, str]


@dataclass(frozen=True)
class SceneObject:
    """One shape.

    Args:
        x, y, radius, colour, rgb: as they are in the middle of the clip.
        travel: length of the whole path.
        heading: where an entering, leaving or zigzagging object goes.
        phase: angle of a circling one, in turns.
        becomes, becomes_rgb: the colour that a changing one ends with.
        begin, end: the part of the clip in which it moves.
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
    phase: float = 0.0
    becomes: str = ""
    becomes_rgb: RGB = (0, 0, 0)
    begin: float = 0.0
    end: float = 1.0

    def state(self, time: float) -> tuple[float, float, float]:
        """Centre x, centre y and radius at ``time`` in [0, 1]."""
        time = min(1.0, max(0.0, (time - self.begin) / (self.end - self.begin)))
        x, y = offset(self.motion, self.heading, self.travel, self.phase, time)
        return self.x + x, self.y + y, self.radius * growth(self.motion, self.travel, time)

    def rgb_at(self, time: float) -> RGB:
        """Its colour at ``time``."""
        if not self.becomes:
            return self.rgb
        share = turned(time)
        red, green, blue = (
            round(a + (b - a) * share) for a, b in zip(self.rgb, self.becomes_rgb, strict=True)
        )
        return red, green, blue

    @property
    def size(self) -> str:
        """ "big", "small", or "" where nobody would say."""
        if self.radius >= BIG:
            return "big"
        return "small" if self.radius <= SMALL else ""

    @property
    def speed(self) -> str:
        """ "slowly", "quickly", or "" where nobody would say."""
        if self.motion not in STRAIGHT:
            return ""
        if self.travel <= SLOW[1]:
            return "slowly"
        return "quickly" if self.travel >= FAST[0] else ""


@dataclass(frozen=True)
class Scene:
    """A background and its objects, nearest first.

    Args:
        relation: of the first object to the second.
        together: what they all do with each other, see :data:`core.scenes.motions.TOGETHER`.
        in_turn: one moves after the other.
    """

    background: str
    objects: tuple[SceneObject, ...]
    background_rgb: RGB
    texture: str = "plain"
    relation: str = ""
    together: str = ""
    in_turn: bool = False
    look: Look = PLAIN


def is_held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether training never shows this combination: one in eight, spread evenly over pairs of attributes."""
    return (list(COLOURS).index(colour) + 2 * SHAPES.index(shape) + 3 * MOTIONS.index(motion)) % 8 == 0


# whole pairs that training never shows, in no motion, clip or picture
UNSEEN_PAIRS = (("red", "heart"), ("yellow", "square"), ("blue", "ring"), ("pink", "triangle"))


def combinations(held_out: bool, pairs: bool = False) -> list[Combination]:
    """All (colour, shape, motion) of one side of the split, in a fixed order.

    Args:
        pairs: those of the unseen pairs instead.
    """
    every = [(c, s, m) for c in COLOURS for s in SHAPES for m in MOTIONS]
    if pairs:
        return [combination for combination in every if combination[:2] in UNSEEN_PAIRS]
    return [
        combination
        for combination in every
        if combination[:2] not in UNSEEN_PAIRS and is_held_out(*combination) == held_out
    ]


def backgrounds_for(colours: Sequence[str]) -> list[str]:
    """The backgrounds that all these colours stand out from."""
    common = frozenset.intersection(*(VISIBLE[colour] for colour in colours))
    return [name for name in BACKGROUNDS if name in common]


def render(
    scene: Scene, height: int, width: int, num_frames: int = 1, times: Sequence[float] | None = None
) -> np.ndarray:
    """Draw a scene: uint8 RGB [num_frames, height, width, 3].

    Args:
        times: these moments in [0, 1] instead of those of :func:`frame_times`.
    """
    if times is None:
        times = frame_times(num_frames)
    frames = np.empty((len(times), height, width, 3), np.uint8)
    frames[:] = paint_background(scene.background_rgb, scene.texture, height, width)
    side = min(height, width)
    for frame, time in zip(frames, times, strict=True):
        # the nearest object comes last, over the others
        for item in reversed(scene.objects):
            x, y, radius = item.state(time)
            centre = (x * width, y * height)
            draw_shape(frame, item.shape, centre, radius * side, item.rgb_at(time), scene.look)
    return frames


def frame_times(num_frames: int) -> list[float]:
    """The moments in [0, 1] that a clip's frames show, evenly spaced; a single frame shows the middle."""
    return [0.5] if num_frames == 1 else [frame / (num_frames - 1) for frame in range(num_frames)]


def drawn_pixels(scene: Scene, frames: np.ndarray) -> np.ndarray:
    """Where frames uint8 [T, H, W, 3] of a scene show more than its background: bool [T, H, W]."""
    background = paint_background(scene.background_rgb, scene.texture, *frames.shape[1:3])
    return np.abs(frames.astype(np.int16) - background).max(-1) > 10


def object_masks(scene: Scene, height: int, width: int, time: float = 0.5) -> list[np.ndarray]:
    """What can be seen of each object at ``time``, nearer ones taken away: coverage uint8 [H, W]."""
    side = min(height, width)
    masks: list[np.ndarray] = []
    free = np.full((height, width), 255, np.uint8)
    for item in scene.objects:
        x, y, radius = item.state(time)
        mask = shape_mask(item.shape, x * width, y * height, radius * side, height, width, scene.look.form)
        # what nearer objects cover is not free any more
        masks.append(np.minimum(mask, free))
        free = np.minimum(free, 255 - mask)
    return masks


def aspect_of(height: int, width: int) -> tuple[float, float]:
    """A frame's (width, height) in units of its shorter side."""
    side = min(height, width)
    return width / side, height / side
