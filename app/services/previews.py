"""Previews as bytes: nothing is written to disk for them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

MAX_SIDE = 320


def animated_webp(frames: np.ndarray, fps: int) -> bytes:
    """uint8 [T, H, W, 3] -> an endlessly looping WebP, a still one for a single frame."""
    first, *more = (Image.fromarray(frame) for frame in frames)
    looping = {"save_all": True, "append_images": more, "duration": round(1000 / fps), "loop": 0}
    buffer = io.BytesIO()
    first.save(buffer, format="WEBP", quality=70, method=0, **(looping if more else {}))
    return buffer.getvalue()


def preview_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) with the same proportions: the clip's own, or smaller with a longer side of 320."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
