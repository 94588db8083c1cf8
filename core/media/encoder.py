"""The ffmpeg that moviepy writes with: which one it is, whether it can, and what it meant when it failed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
from functools import lru_cache
from typing import Any

from core.errors import MediaError

logger = logging.getLogger(__name__)

TRIAL_S = 60.0  # a cold disk and a busy machine
NAMED_BY = ("FFMPEG_BINARY", "IMAGEIO_FFMPEG_EXE")
_TRIAL = (
    "-loglevel error -f rawvideo -pix_fmt rgb24 -s 32x32 -r 8 -i - -vcodec libx264 -pix_fmt yuv420p "
    "-movflags frag_keyframe+empty_moov -f mp4 -"
)

# what ffmpeg or the system says -> what a person reads; the first that matches counts
DISK_FULL = "the disk is full; free some space and try again"
_TOO_LARGE = "a limit on the size of files (ulimit -f) was reached; raise it and try again"
_CLOSED = "it is closed to this program; choose another folder or open it for writing"
_READ_ONLY = "it is read-only; choose another folder"
_LONG_NAME = "the name is too long; choose a shorter one"
_NO_ENCODER = "ffmpeg has no H.264 encoder (libx264); unset {variables}, or install a full ffmpeg"
_MEANINGS = {
    "No space left on device": DISK_FULL,
    "Disk quota exceeded": DISK_FULL,
    "File too large": _TOO_LARGE,
    "Permission denied": _CLOSED,
    "Operation not permitted": _CLOSED,
    "Read-only file system": _READ_ONLY,
    "File name too long": _LONG_NAME,
    "No such file or directory": "its folder is gone; make it again or choose another",
    "Unknown encoder": _NO_ENCODER,
    "Error selecting an encoder": _NO_ENCODER,
    "Cannot allocate memory": "the machine ran out of memory; close other programs and try again",
}
_ERRORS = {
    errno.ENOSPC: DISK_FULL,
    getattr(errno, "EDQUOT", errno.ENOSPC): DISK_FULL,
    errno.EFBIG: _TOO_LARGE,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _READ_ONLY,
    errno.ENAMETOOLONG: _LONG_NAME,
    errno.ENOTDIR: "a file stands where its folder should be; choose another folder",
    errno.EEXIST: "a file stands where its folder should be; choose another folder",
    errno.EISDIR: "a folder of that name is in its place; choose another name",
}
_WINDOWS_ERRORS = {
    112: DISK_FULL,
    39: DISK_FULL,
    206: _LONG_NAME,
    32: "another program holds it open; close that one",
}


def encoder_path() -> str:
    """The ffmpeg that writes clips.

    ``FFMPEG_BINARY`` and ``IMAGEIO_FFMPEG_EXE`` mean what they mean to moviepy.
    Only a wrong ``FFMPEG_BINARY`` is left aside, with a warning.

    Raises:
        MediaError: there is none, or ``IMAGEIO_FFMPEG_EXE`` names none.
    """
    return _encoder_path(*(os.environ.get(name, "") for name in (*NAMED_BY, "PATH")))


@lru_cache(maxsize=8)
def _encoder_path(moviepys: str, imageios: str, search_path: str) -> str:
    import imageio_ffmpeg

    if moviepys not in ("", "ffmpeg-imageio"):
        wanted = "ffmpeg" if moviepys == "auto-detect" else moviepys
        found = shutil.which(wanted, path=search_path or None)
        if found is not None:
            return found
        logger.warning(
            "FFMPEG_BINARY is '%s', which is no program; imageio's ffmpeg is used instead", moviepys
        )
    if imageios:
        found = shutil.which(imageios, path=search_path or None)
        if found is None:
            state = "cannot be run" if os.path.exists(imageios) else "does not exist"
            raise MediaError(
                f"IMAGEIO_FFMPEG_EXE names '{imageios}', which {state}, so no clip can be written; "
                "correct it or unset it."
            )
        return found
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise MediaError(
            "ffmpeg, which writes clips, is missing; install it with "
            "'pip install --force-reinstall imageio-ffmpeg' or your system's own."
        ) from error


def check_encoder() -> None:
    """Encode one small frame with the ffmpeg that clips are written with; about 0.1 s, and once only.

    Raises:
        MediaError: ffmpeg is missing, cannot be run or cannot write H.264; the variable at fault is named.
    """
    _try_encoder(encoder_path())


@lru_cache(maxsize=8)
def _try_encoder(path: str) -> None:
    try:
        ended = subprocess.run(
            [path, *_TRIAL.split()],
            input=bytes(32 * 32 * 3),
            capture_output=True,
            timeout=TRIAL_S,
            **window(),
        )
    except (OSError, ValueError) as error:
        raise MediaError(f"No clip can be written: {unusable(path, error)}.") from error
    except subprocess.TimeoutExpired as error:
        raise MediaError(f"No clip can be written: {silent(path)}.") from error
    if ended.returncode != 0:
        said = ended.stderr.decode("utf-8", "replace")
        raise MediaError(f"No clip can be written: {meaning(ended.returncode, said)} ('{path}').")
    if ended.stdout[4:8] != b"ftyp":  # another program, which takes any arguments and ends well
        raise MediaError(f"No clip can be written: ffmpeg ('{path}') wrote no MP4; {_advice()}.")


def window() -> dict[str, Any]:
    """Arguments of ``Popen`` that keep Windows from opening a window."""
    return {"creationflags": getattr(subprocess, "CREATE_NO_WINDOW", 0)}


def unusable(path: str, error: Exception) -> str:
    """Why an ffmpeg could not even be started."""
    return f"ffmpeg ('{path}') cannot be run ({getattr(error, 'strerror', None) or error}); {_advice()}"


def silent(path: str) -> str:
    """Why an ffmpeg was not waited for any longer."""
    return f"ffmpeg ('{path}') does not answer; {_advice()}"


def meaning(code: int, said: str) -> str:
    """Why an ffmpeg that ran gave up, by its exit status (below 0: a signal's number) and what it said."""
    if code < 0:
        name = {number.value: number.name for number in signal.Signals}.get(-code, str(-code))
        if name == "SIGXFSZ":
            return _TOO_LARGE
        return (
            f"ffmpeg was ended from outside ({name}), often for want of memory; "
            "close other programs and try again"
        )
    for words, reason in _MEANINGS.items():
        if words.lower() in said.lower():
            return reason.format(variables=_variables())
    lines = said.strip().splitlines()
    detail = ""
    if lines:
        detail = f" ({lines[-1].strip()[:200]})"
    return f"ffmpeg ended with status {code}{detail}; {_advice()}"


def system_reason(error: OSError) -> str:
    """Why the system did not let a file be written."""
    reason = _WINDOWS_ERRORS.get(getattr(error, "winerror", None) or 0) or _ERRORS.get(error.errno or 0)
    return reason or f"the system says '{error.strerror or error}'; choose another folder"


def _variables() -> str:
    """The variables that name the ffmpeg in use; where none is set, those that could."""
    named = [name for name in NAMED_BY if os.environ.get(name)]
    return " and ".join(named) or " or ".join(NAMED_BY)


def _advice() -> str:
    return f"check {_variables()} or install imageio-ffmpeg again"
