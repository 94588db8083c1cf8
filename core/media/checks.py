"""What the media need of the machine, asked at the start, before anything large is loaded."""

from __future__ import annotations

from core.media.encoder import try_encoder


def check_opencv() -> None:
    """Import OpenCV, through which all clips are read.

    Raises:
        MediaError: it is not installed or a library of the system is missing; one sentence with the packages.
    """
    import core.opencv  # noqa: F401


def check_encoder() -> None:
    """Encode one small frame with the ffmpeg that clips are written with; about 0.1 s, and once only.

    Raises:
        MediaError: ffmpeg is missing, cannot be run or cannot write H.264; the variable at fault is named.
    """
    try_encoder()
