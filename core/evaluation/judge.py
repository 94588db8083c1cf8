"""Looks at a clip with OpenCV and says what is there: colours, shapes, background and motions. Never asks the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from core.training.drawing import BACKGROUNDS, COLOURS, SHAPES, TONE, shape_mask

FOREGROUND_DISTANCE = 42.0
HALO = 90.0  # at most this much counts as the soft rim of a bright object
MIN_AREA = 0.008  # of the frame
OTHER_COLOUR = 0.12  # of a region: more than this of a second colour is a second object
MOVED = 0.09  # of the frame's side, from first to last frame
GREW = 1.35  # ratio of radii
FEWEST_FRAMES = 3  # an object seen in fewer is an accident


@dataclass(frozen=True)
class Blob:
    """One object in one frame: its mask, centre and area as fractions, its colour's name, and whether the frame cuts it."""

    mask: np.ndarray
    x: float
    y: float
    area: float
    colour: str
    cut: bool


@dataclass(frozen=True)
class Verdict:
    """What one object is and does; None where nothing can be made out. ``motion`` in the words of captions."""

    colour: str
    shape: str
    motion: str | None


def nearest(rgb: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    """The palette's name closest to ``rgb`` in CIELAB."""
    return nearest_names(np.asarray(rgb, np.float32)[None], palette)[0]


def nearest_names(pixels: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> list[str]:
    """The palette's closest name of every colour [K, 3]."""
    names = list(palette)
    stacked = np.concatenate([pixels, np.array([palette[name] for name in names])]).astype(np.float32)[None] / 255.0
    lab = cv2.cvtColor(stacked, cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[: len(pixels), None] - lab[None, len(pixels) :], axis=-1)
    return [names[i] for i in distances.argmin(1)]


def background_colour(frames: np.ndarray) -> np.ndarray:
    """Median colour of the frames' border pixels, float [3]."""
    edge = 3
    top, bottom = frames[:, :edge].reshape(-1, 3), frames[:, -edge:].reshape(-1, 3)
    left, right = frames[:, :, :edge].reshape(-1, 3), frames[:, :, -edge:].reshape(-1, 3)
    return np.median(np.concatenate([top, bottom, left, right]), axis=0)


def foreground(frame: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Where a frame [H, W, 3] differs from the background by more than a texture's two tones do: bool [H, W]."""
    difference = frame.astype(np.float32) - background
    lightness = difference.mean(-1, keepdims=True)
    rest = difference - np.clip(lightness, -TONE, TONE)
    distance = np.linalg.norm(rest, axis=-1)
    return distance > max(FOREGROUND_DISTANCE, min(HALO, 0.45 * float(np.percentile(distance, 99))))


def find_blobs(frame: np.ndarray, background: np.ndarray) -> list[Blob]:
    """The objects of one frame, largest first; regions of two colours are taken apart."""
    mask = foreground(frame, background).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    blobs = []
    for number in range(1, count):
        if stats[number, cv2.CC_STAT_AREA] / mask.size < MIN_AREA:
            continue
        region = labels == number
        for colour, part in _by_colour(frame, region).items():
            if part.sum() / mask.size >= MIN_AREA:
                rows, columns = np.where(part)
                height, width = part.shape
                cut = rows.min() == 0 or columns.min() == 0 or rows.max() == height - 1 or columns.max() == width - 1
                blobs.append(Blob(part, columns.mean() / width, rows.mean() / height, part.mean(), colour, bool(cut)))
    return sorted(blobs, key=lambda blob: -blob.area)


def _by_colour(frame: np.ndarray, region: np.ndarray) -> dict[str, np.ndarray]:
    """A region, or its parts when it has two colours inside its rim."""
    inner = cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    inner = inner if inner.sum() > 8 else region
    shares = Counter(nearest_names(frame[inner], COLOURS))
    large = [name for name, pixels in shares.most_common(2) if pixels > OTHER_COLOUR * inner.sum()]
    if len(large) < 2:
        return {nearest(np.median(frame[inner], axis=0), COLOURS): region}
    own = np.array(nearest_names(frame[region], {name: COLOURS[name] for name in large}))
    parts = {}
    for name in large:
        part = np.zeros(region.shape, np.uint8)
        part[region] = own == name
        part = cv2.morphologyEx(part, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        parts[name] = part.astype(bool)
    return parts


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


def name_motion(track: list[Blob | None]) -> str | None:
    """What an object does, from where it is in every frame of a clip, in the words of captions."""
    seen = [blob for blob in track if blob is not None]
    first, last = seen[0], seen[-1]
    dx, dy = last.x - first.x, last.y - first.y
    heading = ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("bottom" if dy > 0 else "top")
    if track[0] is None and track[-1] is not None:
        return f"entering from the {OPPOSITE_SIDE[heading]}"
    if track[-1] is None and track[0] is not None:
        return f"leaving to the {heading}"
    if track[0] is None:
        return None
    ratio = (last.area / first.area) ** 0.5
    cut = first.cut or last.cut
    if max(abs(dx), abs(dy)) > MOVED and (cut or max(ratio, 1 / ratio) < 1.8):
        return f"moving {heading.replace('top', 'up').replace('bottom', 'down')}"
    if ratio > GREW:
        return "growing"
    return "shrinking" if ratio < 1 / GREW else "staying still"


OPPOSITE_SIDE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


def judge(frames: np.ndarray, most: int = 2) -> tuple[str, list[Verdict]]:
    """Judge a clip, uint8 RGB [T, H, W, 3]: the background's colour, and its objects, at most ``most``, largest first.

    An object is what keeps its colour; its shape is named by majority over the frames that show it whole.
    """
    background = background_colour(frames)
    found = [find_blobs(frame, background) for frame in frames]
    area: Counter[str] = Counter()
    tracks: dict[str, list[Blob | None]] = {}
    for time, blobs in enumerate(found):
        for blob in reversed(blobs):  # the largest of a colour wins
            tracks.setdefault(blob.colour, [None] * len(frames))[time] = blob
    few = min(FEWEST_FRAMES, len(frames))
    verdicts = []
    for colour, track in tracks.items():
        seen = [blob for blob in track if blob is not None]
        area[colour] = sum(blob.area for blob in seen)  # type: ignore[assignment]
        if len(seen) < few:
            continue
        whole = [blob for blob in seen if not blob.cut] or seen
        shapes = [name_shape(blob.mask) for blob in whole]
        motion = name_motion(track) if len(frames) > 1 else None
        verdicts.append(Verdict(colour, max(shapes, key=shapes.count), motion))
    verdicts.sort(key=lambda verdict: -area[verdict.colour])
    return nearest(background, BACKGROUNDS), verdicts[:most]
