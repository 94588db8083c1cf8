"""Looks at a clip with OpenCV and says what is there: colour, shape, background and motion. Never asks the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from core.training.scenes import BACKGROUNDS, COLOURS, SHAPES, shape_mask

FOREGROUND_DISTANCE = 42.0
MIN_AREA = 0.008  # of the frame
MOVED = 0.11  # of the frame's side, from first to last frame
GREW = 1.35  # ratio of radii


@dataclass(frozen=True)
class Verdict:
    """What a clip shows; None where nothing can be made out."""

    colour: str | None
    shape: str | None
    background: str | None
    motion: str | None


@dataclass(frozen=True)
class Blob:
    """The largest foreground region of one frame: its mask, centre (fractions), area (fraction) and mean colour."""

    mask: np.ndarray
    x: float
    y: float
    area: float
    rgb: np.ndarray


def nearest(rgb: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    """The palette's name closest to ``rgb`` in CIELAB."""
    names = list(palette)
    pixels = np.array([rgb, *(palette[name] for name in names)], np.float32)[None] / 255.0
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0]
    return names[int(np.linalg.norm(lab[1:] - lab[0], axis=1).argmin())]


def background_colour(frames: np.ndarray) -> np.ndarray:
    """Median colour of the frames' border pixels, float [3]."""
    edge = 3
    top, bottom = frames[:, :edge].reshape(-1, 3), frames[:, -edge:].reshape(-1, 3)
    left, right = frames[:, :, :edge].reshape(-1, 3), frames[:, :, -edge:].reshape(-1, 3)
    return np.median(np.concatenate([top, bottom, left, right]), axis=0)


def find_blob(frame: np.ndarray, background: np.ndarray) -> Blob | None:
    """The largest region of ``frame`` [H, W, 3] that differs from the background."""
    distance = np.linalg.norm(frame.astype(np.float32) - background, axis=-1)
    threshold = max(FOREGROUND_DISTANCE, 0.45 * float(np.percentile(distance, 99)))
    mask = (distance > threshold).astype(np.uint8)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    height, width = mask.shape
    area = stats[largest, cv2.CC_STAT_AREA] / (height * width)
    if area < MIN_AREA:
        return None
    own = (labels == largest).astype(np.uint8)
    inner = cv2.erode(own, np.ones((3, 3), np.uint8))
    core = frame[inner.astype(bool)] if inner.sum() > 8 else frame[own.astype(bool)]
    x, y = centres[largest]
    return Blob(own, x / width, y / height, area, np.median(core, axis=0))


@lru_cache(maxsize=1)
def _templates() -> dict[str, np.ndarray]:
    return {shape: _boxed(shape_mask(shape, 64, 64, 50, 128, 128) > 127) for shape in SHAPES}


def _boxed(mask: np.ndarray) -> np.ndarray:
    """The mask's bounding box scaled to 48 x 48, values 0 to 1, its proportions kept by padding."""
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    side = max(cut.shape)
    square = np.zeros((side, side), np.float32)
    top, left = (side - cut.shape[0]) // 2, (side - cut.shape[1]) // 2
    square[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return cv2.resize(square, (48, 48), interpolation=cv2.INTER_AREA)


def name_shape(mask: np.ndarray) -> str:
    """The shape whose template overlaps best (intersection over union of soft masks)."""
    seen = _boxed(mask)
    scores = {
        shape: float(np.minimum(seen, template).sum() / np.maximum(seen, template).sum())
        for shape, template in _templates().items()
    }
    return max(scores, key=lambda shape: scores[shape])


def name_motion(first: Blob, last: Blob) -> str:
    """How the blob got from the first to the last frame."""
    dx, dy = last.x - first.x, last.y - first.y
    ratio = (last.area / first.area) ** 0.5
    if max(abs(dx), abs(dy)) > MOVED and not (max(ratio, 1 / ratio) > 1.8):
        if abs(dx) > abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"
    if ratio > GREW:
        return "growing"
    return "shrinking" if ratio < 1 / GREW else "still"


def judge(frames: np.ndarray) -> Verdict:
    """Judge a clip of one object, uint8 RGB [T, H, W, 3]; colour and shape by majority over the frames."""
    background = background_colour(frames)
    blobs = [find_blob(frame, background) for frame in frames]
    seen = [blob for blob in blobs if blob is not None]
    ground = nearest(background, BACKGROUNDS)
    if len(seen) < (len(frames) + 1) // 2:
        return Verdict(None, None, ground, None)
    colours = [nearest(blob.rgb, COLOURS) for blob in seen]
    shapes = [name_shape(blob.mask.astype(bool)) for blob in seen]
    motion = name_motion(seen[0], seen[-1]) if len(frames) > 1 else None
    return Verdict(max(colours, key=colours.count), max(shapes, key=shapes.count), ground, motion)
