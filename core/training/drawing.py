"""The palette and the pen: names and colours of what scenes are made of, and how shapes and backgrounds are drawn."""

from __future__ import annotations

import random

import cv2
import numpy as np

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (222, 38, 38),
    "orange": (245, 136, 24),
    "yellow": (248, 222, 48),
    "green": (44, 168, 66),
    "blue": (48, 104, 236),
    "purple": (144, 58, 196),
    "pink": (250, 150, 196),
    "white": (246, 246, 246),
}
BACKGROUNDS: dict[str, RGB] = {
    "black": (12, 12, 12),
    "gray": (122, 122, 122),
    "brown": (104, 66, 36),
    "navy": (20, 26, 84),
}
TEXTURES = ("plain", "striped", "checkered", "dotted")
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
RING_HOLE = 0.55  # inner radius of a ring as a fraction of the outer one
TONE = 20  # how much lighter a texture's second tone is
TEXTURE_CELLS = 6  # stripes, squares or dots along the shorter side, and as many gaps


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


def blend(frame: np.ndarray, mask: np.ndarray, rgb: RGB) -> None:
    """Paint ``rgb`` where ``mask`` [H, W] covers the frame [H, W, 3], in place."""
    left, top, width, height = cv2.boundingRect(mask)
    box = slice(top, top + height), slice(left, left + width)
    alpha = mask[box][..., None].astype(np.uint16)
    frame[box] = (frame[box] * (255 - alpha) + np.asarray(rgb, np.uint16) * alpha + 127) // 255


def paint_background(rgb: RGB, texture: str, height: int, width: int) -> np.ndarray:
    """A background of one colour, or of two near tones of it in a pattern: uint8 [H, W, 3]."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = rgb
    if texture == "plain":
        return frame
    lighter = tuple(min(255, channel + TONE) for channel in rgb)
    cell = min(height, width) / (2 * TEXTURE_CELLS)
    rows, columns = (np.arange(height) + 0.5) / cell, (np.arange(width) + 0.5) / cell
    if texture == "striped":
        second = np.broadcast_to((columns.astype(int) % 2 == 1)[None], (height, width))
    elif texture == "checkered":
        second = (rows.astype(int)[:, None] // 2 + columns.astype(int)[None] // 2) % 2 == 1
    elif texture == "dotted":
        from_dot = ((rows % 2 - 1) ** 2)[:, None] + ((columns % 2 - 1) ** 2)[None]
        second = from_dot < 0.42
    else:
        raise ValueError(f"unknown texture {texture!r}; known: {', '.join(TEXTURES)}")
    frame[second] = lighter
    return frame


def photograph(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    """What cameras and websites do to pictures: other light, blur, noise, JPEG blocks. uint8 [T, H, W, 3], as given.

    A third of all media stay clean; the others get one to three of the four, the same for every frame of a clip.
    """
    faults = rng.sample(("light", "blur", "noise", "jpeg"), rng.choice((0, 1, 2, 3)))
    if "light" in faults:
        gain, offset = rng.uniform(0.85, 1.12), rng.uniform(-8, 8)
        frames = np.clip(frames * gain + offset, 0, 255).astype(np.uint8)
    if "blur" in faults:
        sigma = rng.uniform(0.3, 1.0) * min(frames.shape[1:3]) / 84
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])
    if "noise" in faults:
        draws = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 11), frames.shape)
        frames = np.clip(frames + draws, 0, 255).astype(np.uint8)
    if "jpeg" in faults:
        quality = [cv2.IMWRITE_JPEG_QUALITY, rng.randint(30, 90)]
        frames = np.stack([cv2.imdecode(cv2.imencode(".jpg", frame, quality)[1], cv2.IMREAD_COLOR) for frame in frames])
    return frames
