"""The preview of a clip: a component of its own, fed with data URIs."""

from __future__ import annotations

import base64
from typing import Any

from app.formatting import duration
from app.services.video import PreviewStep

IDLE = "Type a prompt and press Generate: the clip appears here step by step."
TEMPLATE = """
<figure class="${value.state}">
  <div class="screen" style="--ratio: ${value.ratio}">
    ${value.src ? `<img alt="${value.alt}" src="${value.src}">` : `<div class="hint">${value.text}</div>`}
  </div>
  <div class="bar"><div style="width: ${value.percent}%"></div></div>
  <figcaption role="status" aria-live="polite">${value.text}</figcaption>
</figure>
"""


def view(text: str, src: str = "", percent: float = 0.0, ratio: float = 1.0) -> dict[str, Any]:
    """The value of the preview component."""
    return {
        "text": text,
        "src": src,
        "percent": round(percent, 1),
        "ratio": round(ratio, 4),
        "alt": "Preview of the clip",
        "state": "live",
    }


def step_view(step: PreviewStep, ratio: float) -> dict[str, Any]:
    """A denoising step as the preview component's value; ``ratio`` is the clip's width by its height."""
    left_s = step.elapsed_s / step.index * (step.total - step.index)
    ending = f"about {duration(left_s)} left" if step.index < step.total else "decoding the frames…"
    src = "data:image/webp;base64," + base64.b64encode(step.webp).decode()
    text = f"Step {step.index} of {step.total} · {ending}"
    return view(text, src, 100 * step.index / step.total, ratio)
