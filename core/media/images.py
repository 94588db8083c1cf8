"""Images from people, read so that no file can hurt: formats by list, size by header, one sentence on error.

What stands beside the pixels (texts, profiles, a missing end mark) neither refuses nor changes a picture.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import MediaError
from core.media.files import check_file, label_of
from core.media.kinds import IMAGE_FORMATS, MAX_IMAGE_BYTES, picture_format
from core.media.mending import is_filler, mended
from core.media.pixels import image_of, to_rgb

MAX_PIXELS = 25_000_000
MAX_SIDE = 8192
MAX_ASPECT = 20


class _Damaged(MediaError):
    """A fault that :mod:`core.media.mending` may help with; to everybody else a :class:`MediaError`."""


def read_image(source: str | Path | Image.Image | np.ndarray) -> Image.Image:
    """An upright RGB image of 8 bits; transparency becomes white, of an animation the first frame counts.

    Args:
        source: a file, a Pillow image of any mode, or an array as :func:`~core.media.pixels.image_of` takes,
            [H, W] or [H, W, 1 to 4].

    Raises:
        MediaError: missing, empty, too large, of a foreign format, damaged, or with a large part missing.
    """
    if isinstance(source, np.ndarray):
        source = image_of(source)
    if isinstance(source, Image.Image):
        return _decoded(source, "The image")
    path = Path(source)
    label = label_of("image", path)
    check_file(path, label, MAX_IMAGE_BYTES)
    data = path.read_bytes()
    try:
        return _decoded(_opened(data, label), label)
    except _Damaged:
        kind = picture_format(data)
        repaired = mended(data, kind, MAX_PIXELS) if kind else None
        if repaired is None:
            raise
    image = _opened(repaired, label)
    rgb = _decoded(image, label)
    if kind == "JPEG" and is_filler(image):
        raise _Damaged(
            f"{label} is damaged or incomplete: a large part of it is missing; please save it again."
        )
    return rgb


def _opened(data: bytes, label: str) -> Image.Image:
    """The image of a file's bytes, its header read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # DIB: a BMP without its first 14 bytes
            return _with_clear_gray(Image.open(io.BytesIO(data), formats=(*IMAGE_FORMATS, "DIB")), data)
    except Image.DecompressionBombError:
        raise MediaError(
            f"{label} has more than {MAX_PIXELS // 10**6} megapixels; please make it smaller."
        ) from None
    except Exception as error:
        if picture_format(data):
            raise _Damaged(
                f"{label} is damaged or incomplete and not a readable image; please save it again."
            ) from error
        kinds = ", ".join(IMAGE_FORMATS)
        raise _Damaged(f"{label} is not a readable image; use one of {kinds}.") from error


def _decoded(image: Image.Image, label: str) -> Image.Image:
    """The pixels, once the header's size is within the limits."""
    _check_size(image, label)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            return to_rgb(image)
    except Exception as error:
        raise _Damaged(
            f"{label} is damaged or incomplete and cannot be read; please save it again."
        ) from error


def _with_clear_gray(image: Image.Image, data: bytes) -> Image.Image:
    """PNGs of 1, 2 and 4 bits name their transparent gray at that depth; Pillow spreads their pixels to 8."""
    clear = image.info.get("transparency")
    depth = data[24]  # bits; where a PNG says it
    if image.format == "PNG" and image.mode in ("1", "L") and depth < 8 and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // (2**depth - 1)
    return image


def _check_size(image: Image.Image, label: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaError(f"{label} has no pixels.")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise MediaError(
            f"{label} has {width} x {height} pixels; "
            f"at most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} a side are read."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise MediaError(
            f"{label} is {width} x {height}: "
            f"longer than {MAX_ASPECT} times its width cannot be shown to the model."
        )
