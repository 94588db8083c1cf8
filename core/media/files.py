"""What every uploaded file must pass before anything looks inside."""

from __future__ import annotations

from pathlib import Path

from core.errors import MediaError


def check_file(path: Path, label: str, max_bytes: int) -> None:
    """Raises MediaError when the file is missing, empty or larger than ``max_bytes``."""
    if not path.is_file():
        raise MediaError(f"{label} does not exist; please upload it again.")
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise MediaError(f"{label} is empty; please choose another file.")
    if size_bytes > max_bytes:
        raise MediaError(f"{label} is {size_bytes / 2**20:.0f} MiB large; at most {max_bytes // 2**20} MiB are read.")
