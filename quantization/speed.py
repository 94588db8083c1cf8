"""How long a clip will take: the arithmetic of its steps, and how fast this machine has been at it."""

from __future__ import annotations

from core.requests import VideoRequest
from quantization.memory import PROMPT_TOKENS, Model

SMOOTHING = 0.5  # weight of the newest clip


def step_operations(model: Model, clip: VideoRequest) -> float:
    """Multiply-adds, times two, of one denoising step with all its guidance branches."""
    branches = 1 + clip.is_guided
    tokens = clip.noise_tokens
    linear = 0.0  # multiply-adds of a token in matrices
    attention = 0.0  # and with one key, half of them with its value
    for part in model.parts:
        width = part.hidden_size
        keys = part.num_key_value_heads * part.head_dim
        # queries and output, keys and values, the MLP's three
        matrices = 2 * width * width + 2 * keys * width + 3 * width * part.intermediate_size
        linear += part.num_hidden_layers * matrices
        attention += part.num_hidden_layers * width
    return 2 * branches * tokens * (linear + 2 * attention * (tokens + PROMPT_TOKENS))


class ThroughputEstimator:
    """Learns from finished clips how long the next will take."""

    def __init__(self) -> None:
        self._per_operation: float | None = None
        self._per_pixel: float | None = None

    def record_timing(self, model: Model, clip: VideoRequest, step_s: float, decode_s: float) -> None:
        """Learn from a clip that took ``step_s`` seconds a step and ``decode_s`` seconds to decode."""
        self._per_operation = _mixed(self._per_operation, step_s / step_operations(model, clip))
        self._per_pixel = _mixed(self._per_pixel, decode_s / _pixels(clip))

    def expected_s(self, model: Model, clip: VideoRequest) -> float | None:
        """Seconds a clip will take; None before the first."""
        if self._per_operation is None or self._per_pixel is None:
            return None
        step_s = self._per_operation * step_operations(model, clip)
        return clip.num_inference_steps * step_s + self._per_pixel * _pixels(clip)


def _pixels(clip: VideoRequest) -> int:
    return clip.num_frames * clip.height * clip.width


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else (1 - SMOOTHING) * old + SMOOTHING * new
