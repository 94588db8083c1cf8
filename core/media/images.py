"""Images from people, read so that no file can hurt: formats by list, size by header, one clear sentence on error."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from core.errors import MediaError
from core.media.files import check_file

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_FILE_BYTES = 20 * 2**20
MAX_PIXELS = 25_000_000
MAX_SIDE = 8192
MAX_ASPECT = 20


def read_image(source: str | Path | Image.Image) -> Image.Image:
    """An upright RGB image; transparency becomes white, 16-bit gray keeps its steps, of animations the first frame.

    Raises:
        MediaError: missing, empty, too large, of a foreign format, damaged or incomplete.
    """
    if isinstance(source, Image.Image):
        _check_size(source, "The image")
        return _to_rgb(source)
    path = Path(source)
    label = f"The image '{path.name}'"
    check_file(path, label, MAX_FILE_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise MediaError(f"{label} has more than {MAX_PIXELS // 10**6} megapixels; please make it smaller.") from None
    except Exception as error:
        kinds = ", ".join(FORMATS)
        raise MediaError(f"{label} is not a readable image; use one of {kinds}.") from error
    _check_size(image, label)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            return _to_rgb(image)
    except Exception as error:
        raise MediaError(f"{label} is damaged or incomplete and cannot be read; please save it again.") from error


def _check_size(image: Image.Image, label: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaError(f"{label} has no pixels.")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise MediaError(
            f"{label} has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} a side are read."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise MediaError(f"{label} is {width} x {height}: longer than {MAX_ASPECT} times its width cannot be shown to the model.")


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        gray = np.asarray(image, np.float64)
        image = Image.fromarray((gray / (65535 if gray.max() > 255 else 255) * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
