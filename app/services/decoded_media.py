"""What was read of pictures and clips, kept within a bound, so that a conversation reads each file once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from app.services.conversation import ImagePart, MediaPart
from core.media import read_image, read_video

LIMIT_BYTES = 512 * 2**20


class DecodedMedia:
    """Pixels by part; when they exceed the bound, those that were used least lately go.

    Any thread may use it. A part that is not kept is read again, so that dropping costs time alone.

    Args:
        limit_bytes: of all pixels together; a single medium beyond it is never kept.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._kept: OrderedDict[MediaPart, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, part: MediaPart) -> np.ndarray:
        """The pixels of a picture, uint8 [H, W, 3], or of a clip's frames, uint8 [T, H, W, 3].

        Raises:
            MediaError: the file cannot be read.
        """
        with self._lock:
            pixels = self._kept.get(part)
            if pixels is not None:
                self._kept.move_to_end(part)
                return pixels
        pixels = read_part(part)
        self._keep(part, pixels)
        return pixels

    def rename(self, part: MediaPart, copy: MediaPart) -> None:
        """What was read of ``part`` now belongs to ``copy``, the same in another file."""
        with self._lock:
            pixels = self._kept.pop(part, None)
            if pixels is not None:
                self._kept[copy] = pixels  # a fresh name: nothing was kept of it

    def forget(self, paths: Iterable[str]) -> None:
        """Drop what was read of these files."""
        gone = set(paths)
        with self._lock:
            for part in [part for part in self._kept if part.path in gone]:
                self.size_bytes -= self._kept.pop(part).nbytes

    def _keep(self, part: MediaPart, pixels: np.ndarray) -> None:
        with self._lock:
            if pixels.nbytes > self.limit_bytes or part in self._kept:
                return
            self._kept[part] = pixels
            self.size_bytes += pixels.nbytes
            while self.size_bytes > self.limit_bytes:
                self.size_bytes -= self._kept.popitem(last=False)[1].nbytes


def read_part(part: MediaPart) -> np.ndarray:
    """Read a part's file: uint8 [H, W, 3] of a picture, [T, H, W, 3] of a clip.

    Raises:
        MediaError: it cannot be read.
    """
    if isinstance(part, ImagePart):
        # an array: a picture would still say by its Exif how it is to be turned
        return np.asarray(read_image(part.path))
    return read_video(part.path, part.num_frames, part.start_s, part.end_s)
