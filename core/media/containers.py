"""How much of a clip's file is missing, where its container can tell.

Only lengths of boxes that are really there are compared with the file's own length.
Counts of frames, durations and rates that a file declares are often wrong in whole files and are not asked.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from core.media.kinds import MP4_BOXES

_UNKNOWN = (0, 0xFFFFFFFF)  # what recorders write that never came to the end
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def missing_share(path: Path) -> float:
    """The share of a file's bytes, 0 to 1, that were cut off its end; 0 where the container cannot tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head.startswith(b"RIFF"):
            end = _riff_end(file, size, int.from_bytes(head[4:8], "little"))
        elif head.startswith(_EBML):
            end = _matroska_end(file, size)
        elif head[4:8] in MP4_BOXES:
            end = _mp4_end(file, size)
        else:
            return 0.0
    if not end:
        return 0.0
    return max(0.0, 1.0 - size / end)


def _riff_end(file: BinaryIO, size: int, length: int) -> int:
    """Where an AVI of a declared ``length`` should end; the file's end where that cannot be relied on."""
    if length in _UNKNOWN or _has_index(file, size):
        return size
    return 8 + length


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box of an MP4 should end."""
    position = 0
    while position + 8 <= size:
        # a box: its length in bytes, its kind, its body
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:  # a 64-bit length follows
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isascii():  # 0: up to the end of the file; else: no box at all
            return size
        position += length
    return position


def _has_index(file: BinaryIO, size: int) -> bool:
    """Whether an AVI has its index, which stands behind the frames: then nothing was cut off."""
    file.seek(max(0, size - 2**20))
    return b"idx1" in file.read()


def _matroska_end(file: BinaryIO, size: int) -> int:
    """Where the segment of a Matroska or WebM file should end; the file's end when that was never written."""
    file.seek(4)
    length = _ebml_length(file)
    if length is None:
        return size
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return size
    length = _ebml_length(file)
    if length is None:
        return size
    return file.tell() + length


def _ebml_length(file: BinaryIO) -> int | None:
    """An EBML length at the file's position; None when it says "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()  # bytes: one more for each zero bit in front
    highest = (1 << 7 * width) - 1  # seven bits of value a byte; all of them set mean "unknown"
    value = int.from_bytes(first + file.read(width - 1), "big") & highest
    if value == highest:
        return None
    return value
