"""Clips from people: probed and sampled with OpenCV under limits, frames by time, never by a declared count."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import MediaError
from core.media.files import check_file

MAX_FILE_BYTES = 200 * 2**20
MAX_DURATION_S = 600.0
MAX_SIDE = 4096
MAX_FRAMES = 20_000
MAX_READ_S = 60.0
MAX_SAMPLED = 64
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,gif"


@dataclass(frozen=True)
class Clip:
    """What is known of a clip after walking through it: its frames' times in seconds."""

    width: int
    height: int
    times_s: tuple[float, ...]

    @property
    def duration_s(self) -> float:
        return self.times_s[-1]


@contextmanager
def _open(path: Path) -> Iterator:  # type: ignore[type-arg]
    import cv2

    # only local files, only containers of video: no playlists, no image sequences
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"protocol_whitelist;file|format_whitelist;{FORMATS}"
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        yield capture
    finally:
        capture.release()


def probe_video(source: str | Path) -> Clip:
    """Walk through a clip once, within the limits.

    Raises:
        MediaError: missing, empty, too large, too long, of a foreign format, damaged or incomplete.
    """
    import cv2

    path = Path(source)
    label = f"The video '{path.name}'"
    check_file(path, label, MAX_FILE_BYTES)
    with _open(path) as capture:
        if not capture.isOpened():
            raise MediaError(f"{label} is not a readable video; use MP4, MOV, WebM, MKV, AVI or GIF.")
        width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        fps, declared = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if max(width, height) > MAX_SIDE:
            raise MediaError(f"{label} has {width} x {height} pixels; at most {MAX_SIDE} a side are read.")
        if fps > 0 and declared / fps > MAX_DURATION_S:
            raise MediaError(f"{label} is {declared / fps / 60:.0f} minutes long; at most {MAX_DURATION_S / 60:.0f} are read.")
        times = _frame_times(capture, fps, label)
    if not times:
        raise MediaError(f"{label} holds no frame that can be decoded; save it as an H.264 MP4 and try again.")
    if 0 < declared < MAX_FRAMES and len(times) < 0.8 * declared - 2:
        raise MediaError(f"{label} is incomplete: {declared:.0f} frames are declared but only {len(times)} can be read.")
    return Clip(width, height, tuple(times))


def _frame_times(capture, fps: float, label: str) -> list[float]:  # type: ignore[no-untyped-def]
    import cv2

    times: list[float] = []
    deadline = time.monotonic() + MAX_READ_S
    while capture.grab():
        stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        if times and stamp <= times[-1]:  # containers without time stamps
            stamp = times[-1] + (1.0 / fps if fps > 0 else 0.125)
        times.append(stamp)
        if len(times) > MAX_FRAMES or stamp > MAX_DURATION_S:
            raise MediaError(f"{label} is too long; at most {MAX_DURATION_S / 60:.0f} minutes or {MAX_FRAMES} frames are read.")
        if time.monotonic() > deadline:
            raise MediaError(f"{label} takes too long to decode; please use a smaller or shorter one.")
    return times


def read_video(source: str | Path, num_frames: int, start_s: float = 0.0, end_s: float | None = None) -> np.ndarray:
    """Frames evenly spread over a part of a clip, its first and last frame included: uint8 RGB [T, H, W, 3].

    Args:
        num_frames: how many, 1 to 64; short clips give fewer.
        start_s, end_s: the part, in seconds; the end of the clip when left out.

    Raises:
        MediaError: unreadable, or the part is not in the clip.
    """
    import cv2

    path = Path(source)
    picks = sampled_frames(probe_video(path), path.name, num_frames, start_s, end_s)
    frames = []
    with _open(path) as capture:
        position = -1
        for pick in picks:
            while position < pick and capture.grab():
                position += 1
            ok, frame = capture.retrieve()
            if not ok or position != pick:
                raise MediaError(f"The video '{path.name}' is damaged and cannot be read to its end.")
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    first = frames[0].shape
    frames = [f if f.shape == first else cv2.resize(f, (first[1], first[0])) for f in frames]
    return np.stack(frames)


def sampled_frames(clip: Clip, name: str, num_frames: int, start_s: float = 0.0, end_s: float | None = None) -> list[int]:
    """Numbers of the frames that :func:`read_video` reads of a clip called ``name``.

    Raises:
        MediaError: there cannot be so many, or the part is not in the clip.
    """
    if not 1 <= num_frames <= MAX_SAMPLED:
        raise MediaError(f"{num_frames} frames cannot be sampled; choose 1 to {MAX_SAMPLED}.")
    end_s = clip.duration_s if end_s is None else min(end_s, clip.duration_s)
    inside = [i for i, stamp in enumerate(clip.times_s) if start_s - 1e-6 <= stamp <= end_s + 1e-6]
    if not inside:
        raise MediaError(
            f"The part from {start_s:g} s to {end_s:g} s holds no frame of '{name}', which is {clip.duration_s:.1f} s long."
        )
    return sorted({inside[round(i)] for i in np.linspace(0, len(inside) - 1, min(num_frames, len(inside)))})
