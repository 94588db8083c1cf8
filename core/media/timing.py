"""When the frames of a clip are shown, and which stand for a part of it: by time, never by number or rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DISORDER_S = 1.0  # a time stamp this little behind is out of order; further behind, another recording begins
JUMP_S = 600.0  # longer than any clip that is read: so long is no pause
USUAL_FPS = 25.0
SHORTEST_S = 1e-4  # between two frames: less is a rounding of the stamps
JITTER_S = 0.0011  # stamps in whole milliseconds, as in WebM, make a constant rate uneven by this much


def frame_times(stamps_s: Sequence[float], declared_fps: float) -> tuple[float, ...]:
    """Seconds from the first frame, strictly rising, whatever a container's time stamps are.

    Stamps may begin late or below zero.
    Missing ones (0 or NaN) and repeated ones are filled in between their neighbours.
    Where they jump, the next recording follows a usual step after the last.

    Args:
        stamps_s: seconds of the decoded frames, in the order of showing.
        declared_fps: asked only where not even two stamps tell a step.
    """
    step = usual_step(stamps_s, declared_fps)
    numbers = np.arange(len(stamps_s))
    times = np.full(len(stamps_s), np.nan)
    shift = 0.0
    newest: int | None = None
    for number, stamp in enumerate(stamps_s):
        # missing, or out of order: filled in below
        if not math.isfinite(stamp) or (number > 0 and stamp == 0.0):
            continue
        if newest is None:
            shift = number * step - stamp
        else:
            ahead = stamp + shift - times[newest]
            if -DISORDER_S < ahead < SHORTEST_S:
                continue
            # a jump: from here on all is shifted, so that it follows in usual steps
            if not SHORTEST_S <= ahead <= JUMP_S:
                shift += (number - newest) * step - ahead
        times[number] = stamp + shift
        newest = number
    known = np.flatnonzero(np.isfinite(times))
    if not len(known):
        return tuple(float(time) for time in numbers * step)
    # between two known times evenly, before the first and after the last in usual steps
    filled = np.interp(numbers, known, times[known])
    filled += np.minimum(numbers - known[0], 0) * step + np.maximum(numbers - known[-1], 0) * step
    return tuple(float(time) for time in filled - filled[0])


def usual_step(stamps_s: Sequence[float], declared_fps: float) -> float:
    """Seconds from a frame to the next, as most of them have it; see :func:`frame_times`."""
    stamps = np.asarray(stamps_s, np.float64)
    missing = ~np.isfinite(stamps)
    missing[1:] |= stamps[1:] == 0.0
    steps = np.diff(np.where(missing, np.nan, stamps))
    steps = steps[(steps >= SHORTEST_S) & (steps <= JUMP_S)]
    if len(steps):
        return float(np.quantile(steps, 0.5, method="lower"))
    if math.isfinite(declared_fps) and 1.0 <= declared_fps <= 240.0:
        return 1.0 / declared_fps
    return 1.0 / USUAL_FPS


def spread(times_s: Sequence[float], count: int, start_s: float, end_s: float) -> list[int]:
    """Numbers of at most ``count`` frames, spread evenly in time over a part of a clip, which may have none.

    The frames nearest to evenly spaced moments are taken, the first and the last of the part among them.
    The part's first frame is the one on the screen at ``start_s`` where nothing moves for a while.

    Args:
        times_s: of all frames, in seconds, rising.
        start_s, end_s: the part, in seconds.
    """
    times = np.asarray(times_s, np.float64)
    inside = np.flatnonzero((times >= start_s - 1e-6) & (times <= end_s + 1e-6))
    # where nothing moves at first, what is on the screen then belongs to the part
    if 0.0 <= start_s <= min(end_s, times[-1]):
        shown = int(np.searchsorted(times, start_s, side="right")) - 1
        waits = times[inside[0]] - start_s if len(inside) else math.inf
        if waits > usual_step(times_s, 0.0) + JITTER_S:
            inside = np.concatenate([[shown], inside])
    if not len(inside):
        return []
    # at a constant rate by number, which spares the rounding of times; else by time
    moments = np.maximum(times[inside], start_s)
    count = min(count, len(inside))
    if _constant(moments):
        places = np.linspace(0, len(inside) - 1, count)
    else:
        places = np.interp(np.linspace(moments[0], moments[-1], count), moments, np.arange(len(inside)))
    return sorted({int(inside[round(place)]) for place in places})


def _constant(moments: np.ndarray) -> bool:
    """Whether the frames follow each other at one rate."""
    even = np.linspace(moments[0], moments[-1], len(moments))
    return bool(np.abs(moments - even).max() <= JITTER_S)
