"""What a clip shows, found with OpenCV: colours, shapes, background and motions. Never asks the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from core.evaluation.tracks import Blob, Track, name_motion, turnings
from core.opencv import cv2
from core.scenes.rasterizer import BACKGROUNDS, COLOURS, SHAPES, TONE, Form, nearest_names, shape_mask

FOREGROUND_DISTANCE = 42.0
HALO = 90.0  # at most this much counts as the soft rim of a bright object
MIN_AREA = 0.008  # of the frame
OTHER_COLOUR = 0.12  # of a region: more than this of a second colour is a second object
OUTLINE = 3 / 128  # of the frame's shorter side: what is thinner is an outline, not an object
BORDER = 3  # pixels that show the background
FEWEST_FRAMES = 3  # an object seen in fewer is an accident


@dataclass(frozen=True)
class Detection:
    """What one object is and does, in the words of captions; the motion None where it cannot be made out."""

    colour: str
    shape: str
    motion: str | None


def nearest(rgb: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    """The palette's name closest to a colour [3], 0 to 255, in CIELAB."""
    return nearest_names(np.asarray(rgb, np.float32)[None], palette)[0]


def background_colour(frames: np.ndarray) -> np.ndarray:
    """Median colour of the frames' border pixels, float [3]."""
    rows = [frames[:, :BORDER], frames[:, -BORDER:]]
    columns = [frames[:, :, :BORDER], frames[:, :, -BORDER:]]
    return np.median(np.concatenate([part.reshape(-1, 3) for part in rows + columns]), axis=0)


def foreground(frame: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Where a frame [H, W, 3] differs from the background by more than a texture's two tones do: bool [H, W].

    What differs much has a soft rim, which is cut at nearly half its height: it would fill rings and notches.

    Args:
        background: its colour [3].
    """
    difference = frame.astype(np.float32) - background
    lightness = difference.mean(-1, keepdims=True)
    rest = difference - np.clip(lightness, -TONE, TONE)
    distance = np.linalg.norm(rest, axis=-1)
    mask = distance > FOREGROUND_DISTANCE
    # every region has a threshold of its own, by how much it differs
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    for number in range(1, count):
        region = labels == number
        mask[region] = distance[region] > min(HALO, 0.45 * float(np.percentile(distance[region], 95)))
    return mask & (distance > FOREGROUND_DISTANCE)


def find_blobs(frame: np.ndarray, background: np.ndarray) -> list[Blob]:
    """The objects of one frame uint8 [H, W, 3], largest first; regions of two colours are taken apart."""
    mask = foreground(frame, background).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    blobs = []
    for number in range(1, count):
        if stats[number, cv2.CC_STAT_AREA] / mask.size < MIN_AREA:
            continue
        parts = _by_colour(frame, labels == number)
        blobs += [_blob(part, colour) for colour, part in parts.items() if part.mean() >= MIN_AREA]
    return sorted(blobs, key=lambda blob: -blob.area)


def _blob(mask: np.ndarray, colour: str) -> Blob:
    """An object by its mask bool [H, W]."""
    rows, columns = np.where(mask)
    height, width = mask.shape
    cut = bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())
    return Blob(mask, columns.mean() / width, rows.mean() / height, mask.mean(), colour, cut)


def _by_colour(frame: np.ndarray, region: np.ndarray) -> dict[str, np.ndarray]:
    """A region, or its parts when it has two colours inside its rim."""
    inner = cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    inner = inner if inner.sum() > 8 else region
    shares = Counter(nearest_names(frame[inner], COLOURS))
    large = [name for name, pixels in shares.most_common(2) if pixels > OTHER_COLOUR * inner.sum()]
    parts = _taken_apart(frame, region, large) if len(large) == 2 else {}
    if len(parts) == 2:
        return parts
    if parts:
        return {shares.most_common(1)[0][0]: region}
    return {nearest(np.median(frame[inner], axis=0), COLOURS): region}


def _taken_apart(frame: np.ndarray, region: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The parts of a region that have these colours and are thicker than an outline."""
    own = np.array(nearest_names(frame[region], {name: COLOURS[name] for name in names}))
    reach = max(3, round(OUTLINE * min(region.shape)))
    kernel = np.ones((reach, reach), np.uint8)
    parts = {}
    for name in names:
        part = np.zeros(region.shape, np.uint8)
        part[region] = own == name
        part = cv2.morphologyEx(part, cv2.MORPH_OPEN, kernel).astype(bool)
        if part.sum() > OTHER_COLOUR * 0.5 * region.sum():
            parts[name] = part
    return parts


# what shapes look like here and elsewhere: proportions and tilts
FORMS = (
    Form(),
    Form(star_inner=0.55, heart_height=0.86, corner=0.25, ring_hole=0.42, triangle_height=0.86),
    Form(star_inner=0.38, heart_height=1.16, corner=0.12, ring_hole=0.72, triangle_height=1.1),
)


@lru_cache(maxsize=1)
def _templates() -> tuple[tuple[str, ...], np.ndarray]:
    """Names and soft masks [K, 48, 48] of all shapes, in several proportions and tilts."""
    forms = [replace(form, tilt=tilt) for form in FORMS for tilt in (-10.0, 0.0, 10.0)]
    masks = [
        _boxed(shape_mask(shape, 64, 64, 50, 128, 128, form) > 127) for form in forms for shape in SHAPES
    ]
    return SHAPES * len(forms), np.stack(masks)


def _boxed(mask: np.ndarray) -> np.ndarray:
    """The bounding box of a mask bool [H, W], in the middle of a square scaled to [48, 48], values 0 to 1."""
    rows = np.where(mask.any(1))[0]
    columns = np.where(mask.any(0))[0]
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    side = max(cut.shape)
    square = np.zeros((side, side), np.float32)
    top = (side - cut.shape[0]) // 2
    left = (side - cut.shape[1]) // 2
    square[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return cv2.resize(square, (48, 48), interpolation=cv2.INTER_AREA)


def name_shape(mask: np.ndarray) -> str:
    """The shape of a mask bool [H, W]: that whose template overlaps best (intersection over union)."""
    seen = _boxed(mask)
    names, templates = _templates()
    overlap = np.minimum(seen, templates).sum((1, 2)) / np.maximum(seen, templates).sum((1, 2))
    return names[int(overlap.argmax())]


def detect(frames: np.ndarray, most: int = 2) -> tuple[str, list[Detection]]:
    """The background's colour and the objects of a clip.

    An object is what keeps its colour, or turns from one into another where it stands.
    Its shape is named by majority over the frames that show it whole.

    Args:
        frames: uint8 RGB [T, H, W, 3]; a single one is a picture, in which nothing moves.
        most: objects, at most.

    Returns:
        The background's name, and the objects, largest first.
    """
    background = background_colour(frames)
    tracks = _track(frames, background)
    moves = len(frames) > 1
    turned = turnings(tracks) if moves else {}
    # colours that another one turns into, or shows on the way, are no objects of their own
    passing = {colour for after, between in turned.values() for colour in (after, *between)}
    fewest = min(FEWEST_FRAMES, len(frames))
    found = []
    for colour, track in tracks.items():
        seen = [blob for blob in track if blob is not None]
        if len(seen) < fewest or colour in passing:
            continue
        whole = [blob for blob in seen if not blob.cut] or seen
        shapes = [name_shape(blob.mask) for blob in whole]
        motion = name_motion(track) if moves else None
        if colour in turned:
            motion = f"turning {turned[colour][0]}"
        area = sum(blob.area for blob in seen)
        found.append((area, Detection(colour, max(shapes, key=shapes.count), motion)))
    found.sort(key=lambda pair: -pair[0])
    return nearest(background, BACKGROUNDS), [detection for _, detection in found[:most]]


def _track(frames: np.ndarray, background: np.ndarray) -> dict[str, Track]:
    """What has each colour in every frame: the largest of it, or None."""
    tracks: dict[str, Track] = {}
    for time, frame in enumerate(frames):
        for blob in reversed(find_blobs(frame, background)):  # the largest comes last
            tracks.setdefault(blob.colour, [None] * len(frames))[time] = blob
    return tracks
