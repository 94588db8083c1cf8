"""Finished clips on disk: names nobody can guess, old ones removed."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from pathlib import Path

KEEP_S = 6 * 3600.0


class Storage:
    """A folder of results.

    Args:
        folder: kept when given; otherwise a temporary one that :meth:`close` removes.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.temporary = folder is None
        self.folder = Path(folder).expanduser().resolve() if folder else Path(tempfile.mkdtemp(prefix="haploomni-"))
        self.folder.mkdir(parents=True, exist_ok=True)

    def new_path(self, suffix: str) -> Path:
        """A fresh name; results older than six hours go from a temporary folder on the way."""
        if self.temporary:
            self._sweep()
        return self.folder / f"haploomni-{uuid.uuid4().hex}{suffix}"

    def _sweep(self) -> None:
        limit = time.time() - KEEP_S
        for path in self.folder.glob("haploomni-*"):
            if path.is_file() and path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove a temporary folder with all in it."""
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
