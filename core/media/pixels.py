"""Every kind of pixel to 8-bit RGB, by the depth a picture has, never by how bright it happens to be."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms

from core.errors import MediaError

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def image_of(pixels: np.ndarray) -> Image.Image:
    """An array as an image: [H, W] gray or [H, W, 1 to 4] gray, gray and alpha, RGB, RGBA.

    uint8 and uint16 use their whole range, bool is black and white, floats reach from 0 to 1.

    Raises:
        MediaError: another type or shape.
    """
    shape = pixels.shape
    if pixels.ndim == 3 and shape[-1] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and shape[-1] <= 4)) or pixels.size == 0:
        raise MediaError(
            f"An image given as an array must be [height, width] or [height, width, 1 to 4], not {shape}."
        )
    if pixels.dtype == np.uint16:
        pixels = _from_16_bit(pixels)
    elif pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif np.issubdtype(pixels.dtype, np.floating):
        pixels = (np.nan_to_num(pixels.astype(np.float64)).clip(0, 1) * 255).round().astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise MediaError(
            f"An image given as an array must be uint8, uint16, bool or of floats 0 to 1, not {pixels.dtype}."
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright RGB image; transparency becomes white.

    The modes ``I`` and ``I;16`` hold 16 bits, as Pillow reads and writes them.
    ``F`` holds 0 to 255, as Pillow converts it.
    """
    turn = _TURNS.get(_orientation(image))
    image = _eight_bits(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = _on_white(image)
    image = image.convert("RGB")
    image.info = {}  # upright from here on: whoever reads it again must not turn it again
    return image.transpose(turn) if turn is not None else image


def _orientation(image: Image.Image) -> int:
    """Exif's orientation; 1, upright, where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Modes that are deeper, or that Pillow does not convert to RGB itself, as L, LA or RGB."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        clear = image.info.get("transparency")
        gray = Image.fromarray(_from_16_bit(values))
        if isinstance(clear, int):
            gray.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        return gray
    if image.mode == "F":
        return Image.fromarray(
            np.nan_to_num(np.asarray(image), posinf=255.0).clip(0, 255).round().astype(np.uint8)
        )
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        rgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB") or image
    return image


def _from_16_bit(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    try:
        clear = image.convert("RGBA")
    except Exception:  # a transparency that fits no pixel of the image
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), clear)
