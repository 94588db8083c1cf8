"""The palette and the pen: colours, shapes and backgrounds of scenes, and how they are drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.opencv import cv2

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
    "black": (14, 14, 14),
}
BACKGROUNDS: dict[str, RGB] = {
    "black": (12, 12, 12),
    "gray": (122, 122, 122),
    "brown": (104, 66, 36),
    "navy": (20, 26, 84),
    "white": (236, 236, 236),
    "light blue": (166, 208, 240),
    "green": (24, 88, 48),
    "purple": (70, 30, 104),
}
TEXTURES = ("plain", "striped", "checkered", "dotted", "gradient", "gridded")
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
TONE = 20  # how far a texture's second tone is from the first
BRIGHT = 200  # a brighter background has a darker second tone
TEXTURE_CELLS = 6  # stripes, squares or dots along the shorter side, and as many gaps
DISTINCT = 34.0  # CIELAB distance from which a colour stands out from a background
BACKGROUND_JITTER = 5  # levels of 255
WIDE_JITTER = 40  # levels of 255, of objects in any look
DARK = 36.0  # CIELAB lightness: of two darker colours neither stands out from the other


@dataclass(frozen=True)
class Form:
    """Proportions of the shapes, as fractions of the radius; ``tilt`` in degrees."""

    star_inner: float = 0.45
    heart_height: float = 1.0
    corner: float = 0.0  # radius of a square's corners
    ring_hole: float = 0.55
    triangle_height: float = 1.0
    tilt: float = 0.0


PLAIN_FORM = Form()
EDGES = ("smooth", "hard", "fine", "soft")  # anti-aliased; not at all; by drawing it larger; slightly blurred
FINE = 4  # times the resolution that fine edges are drawn at
SUBPIXEL_BITS = 4  # of OpenCV's coordinates


def _unit_polygons(shape: str, form: Form) -> list[np.ndarray]:
    """Contours [K, 2] of an upright shape in the unit circle, y downwards."""
    turn = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
    circle = np.stack([np.sin(turn), -np.cos(turn)], axis=1)
    if shape == "circle":
        return [circle]
    if shape == "ring":
        return [circle, circle * form.ring_hole]
    if shape == "square":
        if not form.corner:
            return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.82]
        # a small circle's quarters, each moved into its corner
        inner = np.sign(circle + 1e-9) * (0.82 - form.corner)
        return [inner + circle * form.corner]
    if shape == "triangle":
        return [np.array([[0.0, -1.0], [0.95, 0.8], [-0.95, 0.8]]) * (1.0, form.triangle_height)]
    if shape == "star":
        angle = np.arange(10) * np.pi / 5.0
        reach = np.where(np.arange(10) % 2 == 0, 1.1, form.star_inner)
        return [np.stack([np.sin(angle) * reach, -np.cos(angle) * reach], axis=1)]
    if shape == "heart":
        x = 16 * np.sin(turn) ** 3
        y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn))
        return [np.stack([x, (y - 2.0) * form.heart_height], axis=1) / 16.0]
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


@lru_cache(maxsize=4096)
def polygons(shape: str, form: Form = PLAIN_FORM) -> tuple[np.ndarray, ...]:
    """Contours of a shape in the unit circle, each [K, 2]; several contours follow the even-odd rule."""
    angle = np.deg2rad(form.tilt)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return tuple(contour @ rotation if form.tilt else contour for contour in _unit_polygons(shape, form))


def shape_mask(
    shape: str,
    x: float,
    y: float,
    radius: float,
    height: int,
    width: int,
    form: Form = PLAIN_FORM,
    edge: str = "smooth",
) -> np.ndarray:
    """Coverage of one shape, uint8 [H, W]; ``x, y, radius`` in pixels, ``edge`` one of :data:`EDGES`."""
    scale = FINE if edge == "fine" else 1
    mask = np.zeros((height * scale, width * scale), np.uint8)
    steps = 2**SUBPIXEL_BITS * scale
    contours = [
        np.round((contour * radius + (x, y)) * steps).astype(np.int32) for contour in polygons(shape, form)
    ]
    line = cv2.LINE_AA if edge in ("smooth", "soft") else cv2.LINE_8
    cv2.fillPoly(mask, contours, 255, lineType=line, shift=SUBPIXEL_BITS)
    if edge == "fine":
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(mask, (0, 0), 0.7) if edge == "soft" else mask


def composite(frame: np.ndarray, mask: np.ndarray, rgb: RGB) -> None:
    """Paint ``rgb`` where ``mask`` [H, W] covers the frame [H, W, 3], in place; both uint8."""
    left, top, width, height = cv2.boundingRect(mask)
    box = slice(top, top + height), slice(left, left + width)
    alpha = mask[box][..., None].astype(np.uint16)
    frame[box] = (frame[box] * (255 - alpha) + np.asarray(rgb, np.uint16) * alpha + 127) // 255


def dilated(masks: np.ndarray, side: int) -> np.ndarray:
    """Masks bool [T, H, W], wider by half a square of ``side`` pixels."""
    square = np.ones((side, side), np.uint8)
    return np.stack([cv2.dilate(mask, square) for mask in masks.astype(np.uint8)]).astype(bool)


def second_tone(rgb: RGB) -> RGB:
    """The other tone of a pattern: lighter, or darker where the first is bright."""
    red, green, blue = (channel + (-TONE if max(rgb) > BRIGHT else TONE) for channel in rgb)
    return red, green, blue


def paint_background(rgb: RGB, texture: str, height: int, width: int) -> np.ndarray:
    """A background of one colour, or of two near tones of it in a pattern: uint8 [H, W, 3]."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = rgb
    if texture == "plain":
        return frame
    # where every pixel is, counted in cells
    cell = min(height, width) / (2 * TEXTURE_CELLS)
    rows = (np.arange(height) + 0.5) / cell
    columns = (np.arange(width) + 0.5) / cell
    if texture == "striped":
        second = np.broadcast_to((columns.astype(int) % 2 == 1)[None], (height, width))
    elif texture == "checkered":
        second = (rows.astype(int)[:, None] // 2 + columns.astype(int)[None] // 2) % 2 == 1
    elif texture == "dotted":
        from_dot = ((rows % 2 - 1) ** 2)[:, None] + ((columns % 2 - 1) ** 2)[None]
        second = from_dot < 0.42
    elif texture == "gridded":
        second = (rows % 2 < 0.3)[:, None] | (columns % 2 < 0.3)[None]
    elif texture == "gradient":
        share = np.linspace(0.0, 1.0, height)[:, None, None]
        frame[:] = np.round(np.asarray(rgb) * (1 - share) + np.asarray(second_tone(rgb)) * share)
        return frame
    else:
        raise ValueError(f"unknown texture {texture!r}; known: {', '.join(TEXTURES)}")
    frame[second] = second_tone(rgb)
    return frame


# -- colours


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """RGB colours [K, 3], 0 to 255, in CIELAB."""
    return cv2.cvtColor(np.asarray(pixels, np.float32)[None] / 255.0, cv2.COLOR_RGB2LAB)[0]


@lru_cache(maxsize=8)
def _palette_lab(colours: tuple[RGB, ...]) -> np.ndarray:
    return to_lab(np.array(colours))


def palette_distances(pixels: np.ndarray, palette: dict[str, RGB]) -> np.ndarray:
    """CIELAB distances [K, N] of colours [K, 3] to those of a palette of N."""
    return np.linalg.norm(to_lab(pixels)[:, None] - _palette_lab(tuple(palette.values()))[None], axis=-1)


def nearest_names(pixels: np.ndarray, palette: dict[str, RGB]) -> list[str]:
    """The palette's closest name of every colour [K, 3]."""
    names = list(palette)
    return [names[i] for i in palette_distances(pixels, palette).argmin(1)]


def _stands_out(colour: str, background: str) -> bool:
    own, behind = to_lab(np.array([COLOURS[colour], BACKGROUNDS[background]]))
    distinct = float(np.linalg.norm(own - behind)) > DISTINCT and max(own[0], behind[0]) > DARK
    return distinct and colour != background


# the backgrounds that each colour stands out from
VISIBLE = {colour: frozenset(name for name in BACKGROUNDS if _stands_out(colour, name)) for colour in COLOURS}


def jitter(rgb: RGB, rng: random.Random, amount: int = 9) -> RGB:
    """A colour near ``rgb``: every channel up to ``amount`` levels of 255 away."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-amount, amount))) for channel in rgb)
    return red, green, blue


def wide_jitter(name: str, rng: random.Random) -> RGB:
    """A colour that everybody would call ``name``: clearly nearer to that of the palette than to others."""
    place = list(COLOURS).index(name)
    for _ in range(20):
        made = jitter(COLOURS[name], rng, WIDE_JITTER)
        distances = palette_distances(np.array([made]), COLOURS)[0]
        if distances[place] < 0.6 * np.delete(distances, place).min():
            return made
    return jitter(COLOURS[name], rng)


def augment(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    """What cameras and websites do to pictures: other light, blur, noise, JPEG blocks.

    A quarter of all media stay clean.
    The others get one to three of the four, the same for every frame of a clip.

    Args:
        frames: uint8 [T, H, W, 3].

    Returns:
        The same shape and type.
    """
    faults = rng.sample(("light", "blur", "noise", "jpeg"), rng.choice((0, 1, 2, 3)))
    if "light" in faults:
        gain = rng.uniform(0.85, 1.12)
        offset = rng.uniform(-8, 8)
        frames = np.clip(frames * gain + offset, 0, 255).astype(np.uint8)
    if "blur" in faults:
        sigma = rng.uniform(0.3, 1.0) * min(frames.shape[1:3]) / 84
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])
    if "noise" in faults:
        draws = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 11), frames.shape)
        frames = np.clip(frames + draws, 0, 255).astype(np.uint8)
    if "jpeg" in faults:
        quality = [cv2.IMWRITE_JPEG_QUALITY, rng.randint(30, 90)]
        packed = [cv2.imencode(".jpg", frame, quality)[1] for frame in frames]
        frames = np.stack([np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)) for file in packed])
    return frames
