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
    The folder of copies is always a temporary one.

    Args:
        folder: of results; kept when given, otherwise a temporary one that :meth:`close` removes.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.temporary = folder is None
        made = Path(folder).expanduser() if folder else Path(tempfile.mkdtemp(prefix="haploomni-"))
        self.folder = made.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.uploads = Path(tempfile.mkdtemp(prefix="haploomni-uploads-")).resolve()
        self._decoded = DecodedMedia()

    def new_path(self, suffix: str) -> Path:
        """A fresh name; on the way uploads, and results in a temporary folder, go after six hours."""
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
        limit = time.time() - KEEP_S
        results = self.folder.glob("haploomni-*") if self.temporary else ()
        for path in [*results, *self.uploads.glob("*/*")]:
            with suppress(OSError):  # another visitor's request swept it first
                if path.is_file() and path.stat().st_mtime < limit:
                    path.unlink()
                    self._decoded.forget([str(path)])
                    if path.parent != self.folder:
                        path.parent.rmdir()

    def close(self) -> None:
        """Remove the uploads, and a temporary folder of results."""
        shutil.rmtree(self.uploads, ignore_errors=True)
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
