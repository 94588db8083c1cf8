"""Results to files: H.264 MP4 (yuv420p, fast start) and PNG, the recipe inside, never half a file under a real name."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import MediaError


def write_clip(frames: np.ndarray, path: str | Path, fps: int = 8, recipe: dict[str, Any] | None = None) -> Path:
    """Write uint8 RGB [T, H, W, 3] (even H and W) as MP4; the recipe goes into the comment tag.

    Raises:
        MediaError: the file cannot be written (full disk, no such folder).
    """
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    path = Path(path)
    temporary = path.with_name(f"{path.stem}.part{path.suffix}")
    options = ["-crf", "14", "-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    if recipe:
        options += ["-metadata", f"comment={json.dumps(recipe, ensure_ascii=False)}"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (frames.shape[2], frames.shape[1])
        with FFMPEG_VideoWriter(
            str(temporary), size, fps, codec="libx264", preset="medium", threads=1, pixel_format="yuv420p", ffmpeg_params=options
        ) as writer:
            for frame in frames:
                writer.write_frame(np.ascontiguousarray(frame))
        os.replace(temporary, path)
    except OSError as error:
        raise MediaError(f"The clip could not be written to {path.parent}: is the disk full or the folder closed?") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def write_image(frame: np.ndarray, path: str | Path, recipe: dict[str, Any] | None = None) -> Path:
    """Write uint8 RGB [H, W, 3] as PNG with the recipe in a text chunk.

    Raises:
        MediaError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.stem}.part{path.suffix}")
    info = PngInfo()
    if recipe:
        info.add_itxt("comment", json.dumps(recipe, ensure_ascii=False))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(temporary, format="PNG", pnginfo=info)
        os.replace(temporary, path)
    except OSError as error:
        raise MediaError(f"The picture could not be written to {path.parent}: is the disk full or the folder closed?") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path
