"""Files on disk: finished clips, and what conversations are about; names nobody can guess, old ones go."""

from __future__ import annotations

import mimetypes
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from app.services.conversation import ImagePart, MediaPart, VideoPart
from app.services.decoded_media import DecodedMedia
from core.errors import MediaError

KEEP_S = 6 * 3600.0
Medium = TypeVar("Medium", bound=MediaPart)
SUFFIXES: dict[type, str] = {ImagePart: ".png", VideoPart: ".mp4"}


class Library:
    """A folder of results, and one of uploads that conversations own.

    Uploaded files belong to the web framework, which shares them among visitors and programs and removes them
    by rules of its own; so a conversation takes a copy of what is sent.

    Args:
        folder: of results; kept when given, else one of our own.
        state: where our own folders are, which outlive the program; None makes temporary ones.
        keep_s: how long a result in our own folder is kept, in seconds.
    """

    def __init__(self, folder: str | None = None, state: Path | None = None, keep_s: float = KEEP_S) -> None:
        self.keep_s = keep_s
        self.keeps_results = folder is not None
        self._temporary: list[Path] = []
        self.folder = Path(folder).expanduser().resolve() if folder else self._own("results", state)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.uploads = self._own("uploads", state)
        self._decoded = DecodedMedia()
        self._sweep()

    def _own(self, name: str, state: Path | None) -> Path:
        """A folder of ours."""
        if state is None:
            made = Path(tempfile.mkdtemp(prefix=f"haploomni-{name}-")).resolve()
            self._temporary.append(made)
            return made
        kept = (state / name).resolve()
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        return kept

    def new_path(self, suffix: str) -> Path:
        """A fresh name; on the way what has had its time goes."""
        self._sweep()
        return self.folder / f"haploomni-{uuid.uuid4().hex}{suffix}"

    def keep(self, part: Medium) -> Medium:
        """``part`` with the path of a copy of its file; a file that is such a copy already stays where it is.

        A name that does not say picture or clip gets a suffix that does: no browser shall open it as a page.

        Raises:
            MediaError: it cannot be copied.
        """
        self._sweep()
        source = Path(part.path)
        if source.resolve().is_relative_to(self.uploads):
            self.touch([part.path])
            return part
        kind = mimetypes.guess_type(source.name)[0] or ""
        is_medium = kind.startswith(("image/", "video/")) and "xml" not in kind  # SVG may hold scripts
        name = source.name if is_medium else source.name + SUFFIXES[type(part)]
        copy = self.uploads / uuid.uuid4().hex / name
        try:
            copy.parent.mkdir(parents=True)
            shutil.copyfile(source, copy)
        except OSError as error:
            shutil.rmtree(copy.parent, ignore_errors=True)
            raise MediaError(
                f"'{source.name}' could not be kept ({error.strerror or error}); please upload it again."
            ) from error
        kept = replace(part, path=str(copy))
        self._decoded.rename(part, kept)
        return kept

    def read(self, part: MediaPart) -> np.ndarray:
        """The pixels of a picture, uint8 [H, W, 3], or of a clip's frames, uint8 [T, H, W, 3], read once.

        Raises:
            MediaError: the file cannot be read.
        """
        return self._decoded.read(part)

    def forget(self, paths: Iterable[str]) -> None:
        """Drop what was read of these files, about which nobody asks any more; they expire by themselves."""
        self._decoded.forget(paths)

    def touch(self, paths: Iterable[str]) -> None:
        """These copies are in use; their six hours begin anew."""
        for path in paths:
            if Path(path).is_relative_to(self.uploads):
                with suppress(OSError):  # gone already
                    os.utime(path)

    def _sweep(self) -> None:
        """Remove uploads that nobody used for hours, and of our own results what has had its time."""
        now = time.time()
        results = () if self.keeps_results else self.folder.glob("haploomni-*")
        old = [(path, self.keep_s) for path in results]
        old += [(path, KEEP_S) for path in self.uploads.glob("*/*")]
        for path, keep_s in old:
            with suppress(OSError):  # another visitor's request swept it first
                if path.is_file() and path.stat().st_mtime < now - keep_s:
                    path.unlink()
                    self._decoded.forget([str(path)])
                    if path.parent != self.folder:
                        path.parent.rmdir()

    def close(self) -> None:
        """Remove the temporary folders."""
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)
