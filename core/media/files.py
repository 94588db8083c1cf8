"""What every uploaded file must pass before anything looks inside."""

from __future__ import annotations

import os
from pathlib import Path

from core.errors import MediaError
from core.text import whole_text

LONGEST_NAME = 255  # of a file on most systems


def label_of(kind: str, path: Path) -> str:
    """``The image 'heart.png'``: how a sentence names a file, in characters that logs and pages can take."""
    name = whole_text(path.name)
    if len(name) > LONGEST_NAME:
        name = name[:LONGEST_NAME] + "…"
    return f"The {kind} '{name}'"


def check_file(path: Path, label: str, max_bytes: int) -> None:
    """Look at a file from outside.

    Raises:
        MediaError: it is missing, closed, empty or larger than ``max_bytes``; ``label`` begins the sentence.
    """
    if not os.path.isfile(path):  # False too for names that no system can have
        raise MediaError(f"{label} does not exist; please upload it again.")
    try:
        with path.open("rb"):
            size_bytes = path.stat().st_size
    except OSError as error:
        raise MediaError(
            f"{label} cannot be opened ({error.strerror}); please choose another file."
        ) from error
    if size_bytes == 0:
        raise MediaError(f"{label} is empty; please choose another file.")
    if size_bytes > max_bytes:
        raise MediaError(
            f"{label} is {size_bytes / 2**20:.0f} MiB large; at most {max_bytes // 2**20} MiB are read."
        )
