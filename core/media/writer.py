"""Results to files: H.264 MP4 (yuv420p, fast start) and PNG, the recipe inside, never half a file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import MediaError
from core.media import encoder
from core.media.videos import decoded_frames
from core.text import whole_text

LITTLE_BYTES = 2**20  # of free space: a disk as full as that is what failed
ENCODE_S = 600.0  # the longest clips take a tenth of it on a busy machine


@contextmanager
def _whole_or_not(path: Path, what: str) -> Iterator[Path]:
    """A name beside ``path`` to write to; renamed to it when the block ends well, else removed."""
    temporary = path.with_name(f"haploomni-{uuid.uuid4().hex}.part")  # short, whatever name it will have
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "a folder is in its place")
        with suppress(FileNotFoundError):
            path.lstat()  # a name that is too long is found now, not after the work
        temporary.touch()
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritten(what, path, encoder.system_reason(error)) from error
    except UnicodeEncodeError as error:
        reason = "this system's encoding has no such letters; use plain ones or set PYTHONUTF8=1"
        raise _unwritten(what, path, reason) from error
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def _unwritten(what: str, path: Path, reason: str) -> MediaError:
    return MediaError(f"The {what} could not be written to {whole_text(str(path.parent))}: {reason}.")


def write_clip(
    frames: np.ndarray, path: str | Path, fps: int = 8, recipe: dict[str, Any] | None = None
) -> Path:
    """Write uint8 RGB [T, H, W, 3] (even H and W) as MP4; the recipe goes into the comment tag.

    Args:
        fps: frames a second.

    Raises:
        MediaError: the file cannot be written (full disk, closed folder, no ffmpeg), or does not play.
    """
    path = Path(path)
    program = encoder.encoder_path()
    with _whole_or_not(path, "clip") as temporary, _notes(recipe) as notes:
        reason = _encode(program, frames, temporary, fps, notes)
        if reason is None and decoded_frames(temporary) != len(frames):
            reason = "what ffmpeg wrote does not play; check the disk and try again"
        if reason is not None:
            if shutil.disk_usage(path.parent).free < LITTLE_BYTES:
                reason = encoder.DISK_FULL
            raise _unwritten("clip", path, reason)
    return path


def _encode(program: str, frames: np.ndarray, path: Path, fps: int, notes: Path | None) -> str | None:
    """Run moviepy's writer over the frames; gives the reason where ffmpeg did not end well."""
    coding: dict[str, Any] = {"codec": "libx264", "preset": "medium", "threads": 1}
    options = [
        *("-crf", "14", "-movflags", "+faststart", "-f", "mp4"),
        *("-fflags", "+bitexact", "-flags:v", "+bitexact"),  # no versions inside, so the same bytes again
    ]
    if notes is not None:
        # the second input, where moviepy puts a sound track: a command line takes not every letter and length
        coding["audiofile"] = str(notes)
        options += ["-map_metadata", "1"]
    size = (frames.shape[2], frames.shape[1])  # width, height
    try:
        writer = _moviepy(program).FFMPEG_VideoWriter(str(path), size, fps, ffmpeg_params=options, **coding)
    except OSError as error:
        return encoder.unusable(program, error)
    process = writer.proc
    try:
        # not frame by frame: an ffmpeg that talks before it reads would wait for us, and we for it
        _, said = process.communicate(np.ascontiguousarray(frames).data.cast("B"), timeout=ENCODE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return encoder.silent(program)
    finally:
        writer.close()  # waits, and does not look how it ended
    if process.returncode == 0:
        return None
    return encoder.meaning(process.returncode, said.decode("utf-8", "replace"))


def _moviepy(program: str) -> ModuleType:
    """moviepy's writer, set to ``program``.

    moviepy reads its two variables when it is imported, and its import fails where one is wrong.
    """
    kept = {name: os.environ.pop(name) for name in ("FFMPEG_BINARY", "FFPLAY_BINARY") if name in os.environ}
    os.environ["FFMPEG_BINARY"] = program
    try:
        from moviepy.video.io import ffmpeg_writer
    finally:
        del os.environ["FFMPEG_BINARY"]
        os.environ.update(kept)
    ffmpeg_writer.FFMPEG_BINARY = program
    return ffmpeg_writer


@contextmanager
def _notes(recipe: dict[str, Any] | None) -> Iterator[Path | None]:
    """The recipe as a file of ffmpeg's metadata format, for as long as it is needed."""
    if not recipe:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="haploomni-") as folder:
        path = Path(folder) / "notes.txt"
        comment = re.sub(r"([=;#\\\n])", r"\\\1", recipe_text(recipe))
        path.write_text(f";FFMETADATA1\ncomment={comment}\n", encoding="utf-8", newline="\n")
        yield path


def recipe_text(recipe: dict[str, Any]) -> str:
    """A recipe as JSON that UTF-8 can take and that reads back the same: halves of characters are escaped."""
    text = json.dumps(recipe, ensure_ascii=False)
    return re.sub("[\ud800-\udfff\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def write_image(frame: np.ndarray, path: str | Path, recipe: dict[str, Any] | None = None) -> Path:
    """Write uint8 RGB [H, W, 3] as PNG with the recipe in a text chunk.

    Raises:
        MediaError: the file cannot be written.
    """
    path = Path(path)
    info = PngInfo()
    if recipe:
        info.add_itxt("comment", recipe_text(recipe))
    with _whole_or_not(path, "picture") as temporary:
        Image.fromarray(frame).save(temporary, format="PNG", pnginfo=info)
    return path
