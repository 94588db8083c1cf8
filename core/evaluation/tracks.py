"""What an object does, from where it is in every frame of a clip."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

MOVED = 0.09  # of the frame's side, from first to last frame
GREW = 1.35  # ratio of radii
SLANTED = 0.45  # the smaller of two displacements as a share of the larger: more is a diagonal
SWAY = 0.05  # of the frame's side: a path that leaves its straight line by more, to and fro, is a zigzag
SAME_PLACE = 0.07  # of the frame's side
OPPOSITE_SIDE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}

WAY = {"left": "left", "right": "right", "top": "up", "bottom": "down"}


@dataclass(frozen=True)
class Blob:
    """One object in one frame.

    Args:
        mask: bool [H, W].
        x, y: of its centre, in fractions of the frame.
        area: as a fraction of the frame's.
        colour: its name.
        cut: whether the frame's border cuts it.
    """

    mask: np.ndarray
    x: float
    y: float
    area: float
    colour: str
    cut: bool


Track = list[Blob | None]


def name_motion(track: Track) -> str | None:
    """What an object does, in the words of captions; None where it cannot be told."""
    seen = [blob for blob in track if blob is not None]
    first = seen[0]
    last = seen[-1]
    dx = last.x - first.x
    dy = last.y - first.y
    across = "right" if dx > 0 else "left"
    down = "bottom" if dy > 0 else "top"
    heading = across if abs(dx) > abs(dy) else down
    if track[0] is None and track[-1] is not None:
        return f"entering from the {OPPOSITE_SIDE[heading]}"
    if track[-1] is None and track[0] is not None:
        return f"leaving to the {heading}"
    if track[0] is None:
        return None
    path = name_path(np.array([(blob.x, blob.y) for blob in seen]))
    if path:
        return path
    ratio = (last.area / first.area) ** 0.5
    cut = first.cut or last.cut
    if max(abs(dx), abs(dy)) > MOVED and (cut or max(ratio, 1 / ratio) < 1.8):
        if min(abs(dx), abs(dy)) > SLANTED * max(abs(dx), abs(dy)):
            return f"moving diagonally {WAY[down]} and to the {across}"
        return f"moving {WAY[heading]}"
    if ratio > GREW:
        return "growing"
    return "shrinking" if ratio < 1 / GREW else "staying still"


def name_path(points: np.ndarray) -> str:
    """The name of a path that is not straight; "" for a straight one.

    Args:
        points: x and y in fractions of the frame [T, 2].
    """
    wide, high = points.max(0) - points.min(0)
    dx, dy = np.abs(points[-1] - points[0])
    if max(dx, dy) > 0.25:
        aside = points[:, 1 if dx > dy else 0]
        line = np.linspace(aside[0], aside[-1], len(aside))
        return "moving in a zigzag" if _swings(aside - line, SWAY) >= 2 else ""
    if high > 0.15 and wide < 0.06 and max(dx, dy) < 0.5 * high:
        return "bouncing"
    short, long = sorted((wide, high))
    round_trip = max(dx, dy) < 0.5 * short
    return "moving in a circle" if short > 0.2 and long < 1.6 * short and round_trip else ""


def _swings(values: np.ndarray, least: float) -> int:
    """How often values go from above ``least`` to below minus it, or back."""
    sides = [value > 0 for value in values if abs(value) > least]
    return sum(a != b for a, b in itertools.pairwise(sides))


def turnings(tracks: dict[str, Track]) -> dict[str, tuple[str, list[str]]]:
    """Colours that turn into another where they stand: {colour: (the other, colours on the way)}."""
    # the first and the last frame that show each colour
    spans = {}
    for colour, track in tracks.items():
        times = [time for time, blob in enumerate(track) if blob is not None]
        spans[colour] = times[0], times[-1]
    found = {}
    for before, (begin, end) in spans.items():
        if begin != 0:
            continue
        place = tracks[before][end]
        for after, (start, last) in spans.items():
            # it comes after the other, in the same place, and stays to the end
            follows = after != before and start > end and last == len(tracks[after]) - 1
            if not follows or not _same_place(place, tracks[after][start]):
                continue
            between = [
                other
                for other, (from_, to) in spans.items()
                if end < from_ and to < start and _same_place(place, tracks[other][from_])
            ]
            found[before] = after, between
    return found


def _same_place(one: Blob | None, other: Blob | None) -> bool:
    """Whether two objects cover much the same."""
    if one is None or other is None or one.cut or other.cut:
        return False
    near = max(abs(one.x - other.x), abs(one.y - other.y)) < SAME_PLACE
    return near and 0.6 < one.area / other.area < 1.67
