"""Whether the machine has what clips are read with, asked at the start, before anything large is loaded."""

from __future__ import annotations


def check_opencv() -> None:
    """Import OpenCV, through which all clips are read.

    Raises:
        MediaError: it is not installed or a library of the system is missing; one sentence with the packages.
    """
    import core.opencv  # noqa: F401
