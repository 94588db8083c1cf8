"""What can be asked for: an answer's sampling, and a clip.

Plain values, checked here, for page, programs, planner and loop.
"""

from __future__ import annotations

import math
import numbers
import reprlib
from dataclasses import dataclass
from typing import Any

from core.errors import PromptError, RequestError
from core.geometry import (
    MIN_SIDE,
    SIDE_STEP,
    is_legal_length,
    is_legal_side,
    latent_shape,
    nearest_length,
    nearest_side,
    noise_tokens,
)
from core.text import whole_text

MAX_STEPS = 200
MAX_GUIDANCE = 30.0
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Args:
        max_new_tokens: of the longest answer.
        temperature: 0 is greedy.
        top_p: the smallest share of probability that the likeliest tokens must hold together.
        top_k: how many of the likeliest tokens are drawn from; 0: all.
        repetition_penalty: of tokens that were there before; 1 is none.
        seed: of the draws; None: another one each time.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def validate(self) -> None:
        """Raises RequestError with the first value that cannot be."""
        for label, value, low, high in (
            ("max_new_tokens", self.max_new_tokens, 1, 8192),
            ("temperature", self.temperature, 0.0, 5.0),
            ("top_p", self.top_p, 0.01, 1.0),
            ("top_k", self.top_k, 0, 10_000),
            ("repetition_penalty", self.repetition_penalty, 0.5, 5.0),
            ("seed", self.seed or 0, 0, MAX_SEED),
        ):
            if not low <= value <= high:
                raise RequestError(f"{label} {value} is not possible; choose {low} to {high}.")


@dataclass(frozen=True)
class VideoRequest:
    """Everything that decides a clip: the same request gives the same clip.

    Args:
        height, width: in pixels.
        guidance_scale: how closely to follow the prompt; 1 is no guidance.
        seed: of the noise that the clip is denoised from.
    """

    prompt: str
    negative_prompt: str
    height: int
    width: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float
    seed: int

    def __post_init__(self) -> None:
        """The recipe names the words that were read: whole Unicode, whatever was sent."""
        for name in ("prompt", "negative_prompt"):
            words = getattr(self, name)
            if isinstance(words, str):
                object.__setattr__(self, name, whole_text(words))

    def validate(self, max_side: int, max_frames: int) -> None:
        """Check every value; ``max_side`` is in pixels.

        Raises:
            RequestError: with the first value that cannot be, and the nearest that can.
            PromptError: the prompt is empty.
        """
        self._check_kinds()
        if not self.prompt.strip():
            raise PromptError("The prompt is empty; describe the clip in a few words.")
        for label, side in (("height", self.height), ("width", self.width)):
            if not is_legal_side(side) or not MIN_SIDE <= side <= max_side:
                raise RequestError(
                    f"The {label} {side} is not possible: it must be a multiple of {SIDE_STEP} "
                    f"from {MIN_SIDE} to {max_side}; the nearest is {nearest_side(side, max_side)}."
                )
        if not is_legal_length(self.num_frames) or self.num_frames > max_frames:
            raise RequestError(
                f"{self.num_frames} frames are not possible: the autoencoder makes 1, 9, 17, 25 and so on "
                f"up to {max_frames}; the nearest is {nearest_length(self.num_frames, max_frames)}."
            )
        if not 1 <= self.num_inference_steps <= MAX_STEPS:
            raise RequestError(f"{self.num_inference_steps} steps are not possible; choose 1 to {MAX_STEPS}.")
        if not (math.isfinite(self.guidance_scale) and 1.0 <= self.guidance_scale <= MAX_GUIDANCE):
            raise RequestError(
                f"A guidance scale of {self.guidance_scale:g} is not possible; "
                f"choose 1 (none) to {MAX_GUIDANCE:g}."
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise RequestError(f"The seed {self.seed} is not possible; choose 0 to {MAX_SEED}.")

    def _check_kinds(self) -> None:
        """Requests also come from forms and programs, which may send anything."""
        for label, text in (("prompt", self.prompt), ("negative prompt", self.negative_prompt)):
            if not isinstance(text, str):
                raise PromptError(f"The {label} must be text, not {brief(text)}.")
        for label, value in (
            ("height", self.height),
            ("width", self.width),
            ("number of frames", self.num_frames),
            ("number of steps", self.num_inference_steps),
            ("seed", self.seed),
        ):
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or abs(value) > MAX_SEED:
                raise RequestError(f"The {label} must be a whole number, not {brief(value)}.")
        guidance = self.guidance_scale
        too_large = isinstance(guidance, numbers.Integral) and abs(guidance) > MAX_SEED  # for a float, maybe
        if not isinstance(guidance, numbers.Real) or isinstance(guidance, bool) or too_large:
            raise RequestError(f"The guidance scale must be a number, not {brief(guidance)}.")

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """[1, F, 16, h, w]."""
        return latent_shape(self.num_frames, self.height, self.width)

    @property
    def is_guided(self) -> bool:
        """Whether two prompts are denoised, classifier-free guidance; a scale of 1 is none."""
        return self.guidance_scale > 1

    @property
    def noise_tokens(self) -> int:
        """Tokens N of one guidance branch, the timestep's not counted."""
        return noise_tokens(self.num_frames, self.height, self.width)


def brief(value: Any) -> str:
    """A value in an error sentence, however large it is."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "one of so many digits"
    return reprlib.repr(value)
