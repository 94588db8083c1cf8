"""Clips from people, walked through and sampled with OpenCV under limits.

What is decoded counts, never what is declared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.errors import MediaError
from core.media.containers import missing_share
from core.media.files import check_file, label_of
from core.media.kinds import MAX_VIDEO_BYTES, VIDEO_FORMATS, is_container
from core.media.timing import frame_times, spread

if TYPE_CHECKING:
    from cv2 import VideoCapture

MAX_DURATION_S = 600.0
MAX_SIDE = 4096
MAX_FRAMES = 20_000
MAX_READ_S = 60.0
MAX_SAMPLED = 64
MAX_MISSING = 0.1  # of a file's bytes: a clip that lost more is no longer what was filmed
MAX_UNREADABLE = 64  # frames in a row: behind a damaged part there may be whole ones
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,gif"


@dataclass(frozen=True)
class Clip:
    """What is known of a clip after walking through it: its sides in pixels, its frames' times in seconds.

    Times are counted from the first frame.
    """

    width: int
    height: int
    times_s: tuple[float, ...]

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the last."""
        return self.times_s[-1]


@contextmanager
def _open(path: Path) -> Iterator[VideoCapture]:
    from core.opencv import cv2

    # only local files, only containers of video: no playlists, no image sequences
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        yield capture
    finally:
        capture.release()


def _walk(capture: VideoCapture) -> Iterator[float]:
    """Grab frame after frame; yields each one's time stamp in seconds, 0 where it has none."""
    from core.opencv import cv2

    unreadable = 0
    while unreadable < MAX_UNREADABLE:
        if capture.grab():
            unreadable = 0
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        else:
            unreadable += 1


def probe_video(source: str | Path) -> Clip:
    """Walk through a clip once, within the limits.

    A clip with a damaged part in the middle is what of it can be decoded.

    Raises:
        MediaError: missing, empty, too large, too long, of a foreign format, damaged, or cut by over a tenth.
    """
    path = Path(source)
    check_file(path, label_of("video", path), MAX_VIDEO_BYTES)
    status = path.stat()
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _probe(path, identity, (MAX_DURATION_S, MAX_SIDE, MAX_FRAMES))


@lru_cache(maxsize=64)
def _probe(path: Path, identity: tuple[int, ...], limits: tuple[float, ...]) -> Clip:  # noqa: ARG001
    """:func:`probe_video`, once a state of a file; it is asked when a clip is sent and when it is read."""
    from core.opencv import cv2

    label = label_of("video", path)
    missing = missing_share(path)
    if missing > MAX_MISSING:
        raise MediaError(
            f"{label} is incomplete: {missing:.0%} of the file are missing at its end; "
            "copy or upload it again."
        )
    with _open(path) as capture:
        if not capture.isOpened():
            if is_container(path):
                raise MediaError(
                    f"{label} is damaged, cut off or holds no picture; "
                    "copy or upload it again, or save it as an H.264 MP4."
                )
            kinds = ", ".join(VIDEO_FORMATS)
            raise MediaError(f"{label} is not a readable video; use one of {kinds} or a GIF.")
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if max(width, height) > MAX_SIDE:
            raise MediaError(f"{label} has {width} x {height} pixels; at most {MAX_SIDE} a side are read.")
        fps = capture.get(cv2.CAP_PROP_FPS)
        if _goes_on_beyond(capture, MAX_DURATION_S):
            raise MediaError(
                f"{label} is longer than {MAX_DURATION_S / 60:.0f} minutes; please cut a part out of it."
            )
    with _open(path) as capture:
        stamps = _stamps(capture, label)
    if not stamps:
        raise MediaError(
            f"{label} holds no frame that can be decoded; save it as an H.264 MP4 and try again."
        )
    times = frame_times(stamps, fps)
    if times[-1] > MAX_DURATION_S:
        raise MediaError(
            f"{label} is {times[-1] / 60:.0f} minutes long; at most {MAX_DURATION_S / 60:.0f} are read."
        )
    return Clip(width, height, times)


def _goes_on_beyond(capture: VideoCapture, limit_s: float) -> bool:
    """Whether a frame can be decoded shortly behind the limit, looked up only where a later end is declared.

    It spares decoding ten minutes of a clip that is hours long.
    A clip whose time stamps jump has no frame there.
    """
    from core.opencv import cv2

    fps = capture.get(cv2.CAP_PROP_FPS)
    declared = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if not (fps > 0 and declared > 0 and declared / fps > limit_s):
        return False
    capture.set(cv2.CAP_PROP_POS_MSEC, (limit_s + 1.0) * 1000.0)
    return capture.grab() and limit_s < capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0 < limit_s + 30.0


def _stamps(capture: VideoCapture, label: str) -> list[float]:
    """The time stamps of all frames in seconds, 0 where one has none."""
    stamps: list[float] = []
    elapsed = 0.0
    deadline = time.monotonic() + MAX_READ_S
    for stamp in _walk(capture):
        # a step backwards or a long one is a fault of the stamps, no time that passed
        if stamps and 0 < stamp - stamps[-1] <= MAX_DURATION_S:
            elapsed += stamp - stamps[-1]
        stamps.append(stamp)
        if len(stamps) > MAX_FRAMES or elapsed > 2 * MAX_DURATION_S:
            raise MediaError(
                f"{label} is too long; "
                f"at most {MAX_DURATION_S / 60:.0f} minutes or {MAX_FRAMES} frames are read."
            )
        if time.monotonic() > deadline:
            raise MediaError(f"{label} takes too long to decode; please use a smaller or shorter one.")
    return stamps


def read_video(
    source: str | Path, num_frames: int, start_s: float = 0.0, end_s: float | None = None
) -> np.ndarray:
    """Frames evenly spread in time over a part of a clip, its first and last frame included.

    Args:
        num_frames: how many, 1 to 64; clips with few frames give fewer.
        start_s, end_s: the part, in seconds from the first frame; the end of the clip when left out.

    Returns:
        uint8 RGB [T, H, W, 3].

    Raises:
        MediaError: unreadable, or the part is not in the clip.
    """
    from core.opencv import cv2

    path = Path(source)
    picks = sampled_frames(probe_video(path), path.name, num_frames, start_s, end_s)
    wanted = set(picks)
    frames: list[np.ndarray] = []
    with _open(path) as capture:
        # frame after frame up to the last that is wanted: seeking is not exact in every container
        for number, _ in enumerate(_walk(capture)):
            if number in wanted:
                ok, frame = capture.retrieve()
                if not ok:
                    break
                frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            if number == picks[-1]:
                break
    if len(frames) < len(picks):
        raise MediaError(f"{label_of('video', path)} is damaged and cannot be read to its end.")
    # all as large as the first, should the size change within the clip
    height, width, _ = frames[0].shape
    return np.stack([cv2.resize(frame, (width, height)) for frame in frames])


def decoded_frames(path: Path) -> int:
    """How many frames of a file can be decoded; 0 where it does not open."""
    with _open(path) as capture:
        return sum(1 for _ in _walk(capture))


def sampled_frames(
    clip: Clip, name: str, num_frames: int, start_s: float = 0.0, end_s: float | None = None
) -> list[int]:
    """Numbers, from 0, of the frames that :func:`read_video` reads of a clip called ``name``.

    Args:
        num_frames, start_s, end_s: as there.

    Raises:
        MediaError: there cannot be so many, or the part is not in the clip.
    """
    if not 1 <= num_frames <= MAX_SAMPLED:
        raise MediaError(f"{num_frames} frames cannot be sampled; choose 1 to {MAX_SAMPLED}.")
    end_s = clip.duration_s if end_s is None else min(end_s, clip.duration_s)
    picks = spread(clip.times_s, num_frames, start_s, end_s)
    if not picks:
        label = label_of("video", Path(name))
        raise MediaError(
            f"The part from {start_s:g} s to {end_s:g} s holds no frame of {label[0].lower()}{label[1:]}, "
            f"which is {clip.duration_s:.1f} s long."
        )
    return picks
