"""How long a clip will take: the arithmetic of its steps, and how fast this machine has been at it."""

from __future__ import annotations

from quantization.memory import PROMPT_TOKENS, Model, Request

SMOOTHING = 0.5  # weight of the newest clip


def step_operations(model: Model, request: Request) -> float:
    """Multiply-adds, times two, of one denoising step with all its guidance branches."""
    branches, tokens = 1 + request.guided, request.noise_tokens
    linear = attention = 0.0
    for part in model.parts:
        width, keys = part.hidden_size, part.num_key_value_heads * part.head_dim
        matrices = 2 * width * width + 2 * keys * width + 3 * width * part.intermediate_size
        linear += part.num_hidden_layers * matrices
        attention += part.num_hidden_layers * width
    return 2 * branches * tokens * (linear + 2 * attention * (tokens + PROMPT_TOKENS))


class Stopwatch:
    """Learns from finished clips how long the next will take."""

    def __init__(self) -> None:
        self._per_operation: float | None = None
        self._per_pixel: float | None = None

    def learn(self, model: Model, request: Request, step_s: float, decode_s: float) -> None:
        """A clip took ``step_s`` seconds a step and ``decode_s`` to decode."""
        self._per_operation = _mixed(self._per_operation, step_s / step_operations(model, request))
        self._per_pixel = _mixed(self._per_pixel, decode_s / _pixels(request))

    def expected_s(self, model: Model, request: Request, steps: int) -> float | None:
        """Seconds a clip will take; None before the first."""
        if self._per_operation is None or self._per_pixel is None:
            return None
        return steps * self._per_operation * step_operations(model, request) + self._per_pixel * _pixels(request)


def _pixels(request: Request) -> int:
    return request.frames * request.height * request.width


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else (1 - SMOOTHING) * old + SMOOTHING * new
