"""A second renderer, which training never uses: Pillow's, with proportions and outlines of its own.

What a model makes of these pictures says whether it knows shapes or one renderer's shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from core.scenes.looks import outline_colour
from core.scenes.rasterizer import paint_background
from core.scenes.scene import Scene, SceneObject, frame_times

SCALE = 4  # times the resolution that is drawn at, for smooth edges
OUTLINE = 0.012  # of the frame's shorter side
TONE = 0.62  # of the object's colour

Point = tuple[float, float]


def _regular(count: int, reach: Sequence[float]) -> list[Point]:
    """Corners around a centre, the first at the top, with alternating distances."""
    angles = [-pi / 2 + 2 * pi * corner / count for corner in range(count)]
    return [
        (reach[n % len(reach)] * cos(angle), reach[n % len(reach)] * sin(angle))
        for n, angle in enumerate(angles)
    ]


def _heart() -> list[Point]:
    """Two half circles on a pointed bottom."""
    bows = [(0.48 * side + 0.48 * cos(angle), -0.34 + 0.48 * sin(angle)) for side, angles in (
        (-1, [pi * (1.0 + step / 16) for step in range(17)]),
        (1, [pi * (1.0 + step / 16) for step in range(17)]),
    ) for angle in angles]  # fmt: skip
    return [*bows, (0.93, -0.1), (0.0, 0.98), (-0.93, -0.1)]


POLYGONS = {
    "triangle": [(0.0, -0.9), (1.0, 0.74), (-1.0, 0.74)],
    "star": _regular(10, (1.12, 0.5)),
    "heart": _heart(),
}


def _draw(
    pen: ImageDraw.ImageDraw, shape: str, centre: Point, radius: float, fill: tuple[int, int, int]
) -> None:
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "square":
        half = 0.84 * radius
        pen.rounded_rectangle((x - half, y - half, x + half, y + half), radius=0.14 * radius, fill=fill)
    elif shape == "ring":
        pen.ellipse(box, outline=fill, width=round(0.36 * radius))
    else:
        pen.polygon([(x + radius * dx, y + radius * dy) for dx, dy in POLYGONS[shape]], fill=fill)


def _draw_item(
    pen: ImageDraw.ImageDraw, item: SceneObject, time: float, height: int, width: int, outlined: bool
) -> None:
    """One object at ``time``: in its outline's colour, then smaller in its own."""
    side = min(height, width)
    x, y, radius = item.state(time)
    centre = (x * width, y * height)
    rgb = item.rgb_at(time)
    rim = OUTLINE * side if outlined and item.shape != "ring" else 0.0
    if rim:
        _draw(pen, item.shape, centre, radius * side, outline_colour(rgb, TONE))
    _draw(pen, item.shape, centre, radius * side - rim, rgb)


def render_otherwise(scene: Scene, height: int, width: int, num_frames: int = 1) -> np.ndarray:
    """Draw a scene as :func:`core.scenes.scene.render` does, in another hand: uint8 RGB [T, H, W, 3].

    The background decides whether there are outlines, so that both occur.
    """
    outlined = sum(scene.background_rgb) % 2 == 0
    painted = paint_background(scene.background_rgb, scene.texture, height * SCALE, width * SCALE)
    background = Image.fromarray(painted)
    frames = []
    for time in frame_times(num_frames):
        picture = background.copy()
        pen = ImageDraw.Draw(picture)
        for item in reversed(scene.objects):
            _draw_item(pen, item, time, height * SCALE, width * SCALE, outlined)
        frames.append(np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS)))
    return np.stack(frames)
