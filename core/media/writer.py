"""Results to files: H.264 MP4 (yuv420p, fast start) and PNG, the recipe inside, never half a file under a real name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import MediaError


@contextmanager
def _whole_or_not(path: Path, what: str) -> Iterator[Path]:
    """A name beside ``path`` to write to; renamed to it when the block ends well, removed when it does not."""
    temporary = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise MediaError(f"The {what} could not be written to {path.parent}: is the disk full or the folder closed?") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_clip(frames: np.ndarray, path: str | Path, fps: int = 8, recipe: dict[str, Any] | None = None) -> Path:
    """Write uint8 RGB [T, H, W, 3] (even H and W) as MP4; the recipe goes into the comment tag.

    Raises:
        MediaError: the file cannot be written (full disk, no such folder).
    """
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    path, size = Path(path), (frames.shape[2], frames.shape[1])
    options = ["-crf", "14", "-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    if recipe:
        options += ["-metadata", f"comment={json.dumps(recipe, ensure_ascii=False)}"]
    coding: dict[str, Any] = {"codec": "libx264", "preset": "medium", "threads": 1, "pixel_format": "yuv420p"}
    with (
        _whole_or_not(path, "clip") as temporary,
        FFMPEG_VideoWriter(str(temporary), size, fps, ffmpeg_params=options, **coding) as writer,
    ):
        for frame in frames:
            writer.write_frame(np.ascontiguousarray(frame))
    return path


def write_image(frame: np.ndarray, path: str | Path, recipe: dict[str, Any] | None = None) -> Path:
    """Write uint8 RGB [H, W, 3] as PNG with the recipe in a text chunk.

    Raises:
        MediaError: the file cannot be written.
    """
    path, info = Path(path), PngInfo()
    if recipe:
        info.add_itxt("comment", json.dumps(recipe, ensure_ascii=False))
    with _whole_or_not(path, "picture") as temporary:
        Image.fromarray(frame).save(temporary, format="PNG", pnginfo=info)
    return path
