"""Previews as data URIs: nothing is written to disk for them."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

MAX_SIDE = 320

TEMPLATE = """
<figure class="${value.state}">
  <div class="screen" style="--ratio: ${value.ratio}">
    ${value.src ? `<img alt="${value.alt}" src="${value.src}">` : `<div class="hint">${value.text}</div>`}
  </div>
  <div class="bar"><div style="width: ${value.percent}%"></div></div>
  <figcaption role="status" aria-live="polite">${value.text}</figcaption>
</figure>
"""


def view(
    text: str, src: str = "", percent: float = 0.0, ratio: float = 1.0, alt: str = "Preview of the clip"
) -> dict[str, object]:
    """The value of the preview component."""
    return {"text": text, "src": src, "percent": round(percent, 1), "ratio": round(ratio, 4), "alt": alt, "state": "live"}


def animated(frames: np.ndarray, fps: int) -> str:
    """uint8 [T, H, W, 3] -> an endlessly looping WebP as a data URI."""
    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": images[1:], "duration": round(1000 / fps), "loop": 0} if len(images) > 1 else {}
    images[0].save(buffer, format="WEBP", quality=70, method=0, **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def preview_size(height: int, width: int) -> tuple[int, int]:
    """A size with the same proportions, its longer side at most 320 and at least that of the clip up to there."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
