"""What is a picture and what is a clip: told by a file's first bytes, by its name only where they are silent.

A GIF is a clip when it moves and a picture when it does not.
Of every other picture that moves (WebP, PNG) the first frame is a picture, since OpenCV plays none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from PIL import Image

from core.errors import MediaError
from core.media.files import check_file, label_of

Kind = Literal["image", "video"]

# Pillow's names of the formats that are read, and the containers that are, as a sentence names them
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
VIDEO_FORMATS = ("MP4", "MOV", "WebM", "MKV", "AVI", "MPEG", "TS")
IMAGE_SUFFIXES = (
    *(".png", ".apng"),
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo"),
    *(".webp", ".gif", ".bmp", ".dib"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mp4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2"),
    *(".webm", ".mkv", ".avi", ".divx"),
    *(".mpg", ".mpeg", ".mpe", ".m2v", ".vob", ".ts", ".m2t", ".m2ts", ".mts"),
)
MAX_IMAGE_BYTES = 20 * 2**20
MAX_VIDEO_BYTES = 200 * 2**20

_HEAD_BYTES = 1024
MP4_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"wide", b"free", b"skip", b"pnot")
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
_MPEG_STARTS = (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")


def kind_of(source: str | Path) -> Kind:
    """Whether a file is a picture or a clip.

    Raises:
        MediaError: neither, or missing without a name that tells.
    """
    path = Path(source)
    head = _head(path)
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        raise MediaError(
            f"{label_of('file', path)} is a HEIC or AVIF picture, which is not read; save it as JPEG or PNG."
        )
    picture = picture_format(head)
    if picture == "GIF":
        return "video" if _moves(path) else "image"
    if picture is not None:
        return "image"
    if _begins_container(head) or path.suffix.lower() in VIDEO_SUFFIXES:
        return "video"
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return "image"
    check_file(path, label_of("file", path), MAX_VIDEO_BYTES)
    raise MediaError(
        f"{label_of('file', path)} is neither a picture nor a clip; "
        f"pictures: {', '.join(IMAGE_FORMATS)}; clips: {', '.join(VIDEO_FORMATS)} and moving GIFs."
    )


def _head(path: Path) -> bytes:
    """The first bytes; none of a file that cannot be opened, which whoever reads it will say."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return b""


def picture_format(head: bytes) -> str | None:
    """Pillow's name of the picture format that begins so, None for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    # "BM" are also two letters of a text: the header's length is what tells
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124):
        return "BMP"
    return None


def is_container(path: Path) -> bool:
    """Whether a file begins as a container of video does, whatever its name."""
    return _begins_container(_head(path))


def _begins_container(head: bytes) -> bool:
    """Whether a container of video begins so."""
    if head[4:8] in MP4_BOXES or head.startswith((b"\x1a\x45\xdf\xa3", *_MPEG_STARTS)):
        return True
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return True
    # MPEG-TS: a 0x47 at the start of every packet; cameras put four bytes of time before each
    packets = (head[0::188], head[4::192])
    return any(len(starts) >= 3 and set(starts[:5]) == {0x47} for starts in packets)


def _moves(path: Path) -> bool:
    """Whether a GIF has a second frame."""
    try:
        with Image.open(path, formats=("GIF",)) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:
        return False
