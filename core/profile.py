"""What a checkpoint says of itself: name and domain, defaults, limits and prompt form; checked when read."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from core.config import HaploOmniConfig
from core.errors import CheckpointError
from core.files import read_json
from core.geometry import (
    FRAME_STEP,
    LATENT_CHANNELS,
    MIN_SIDE,
    SIDE_STEP,
    is_legal_length,
    is_legal_side,
    noise_tokens,
)
from core.requests import MAX_GUIDANCE, MAX_STEPS

PROFILE_FILE = "haploomni.json"
PREVIEW_FILE = "preview.json"
RELEASED_FILE = Path(__file__).parent / "weights" / "released_profile.json"
LARGEST_SIDE = 4096  # pixels that a profile may allow
MOST_FRAMES = 1001  # that a profile may allow
PROMPT_TOKENS = 256  # left for words where a clip is to fit a context


@dataclass(frozen=True)
class GenerationDefaults:
    """A clip where nothing else is asked for: pixels, frames, steps, and how closely to follow the prompt."""

    height: int
    width: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True)
class GenerationLimits:
    """The longest side in pixels and the most frames of a clip."""

    max_side: int
    max_frames: int


@dataclass(frozen=True)
class PromptForm:
    """The conversation around a clip's prompt: a system message or none, the user's with ``{prompt}``."""

    system: str | None
    user: str


@dataclass(frozen=True)
class ChatDefaults:
    """The longest answer in tokens, the temperature (0: greedy), how many frames of a clip are looked at."""

    max_new_tokens: int
    temperature: float
    num_frames: int


@dataclass(frozen=True)
class CheckpointProfile:
    """``haploomni.json`` of a checkpoint; every key is needed, no other is known.

    Args:
        name: of the model.
        domain: an honest line about what it was trained on.
        generation, generation_limits, generation_prompt: of clips.
        chat: of talks.
    """

    name: str
    domain: str
    generation: GenerationDefaults
    generation_limits: GenerationLimits
    generation_prompt: PromptForm
    chat: ChatDefaults

    def faults(self) -> list[str]:
        """Values out of range or at odds with each other, a sentence each."""
        clip = self.generation
        limits = self.generation_limits
        chat = self.chat
        ranges = (
            ("generation_limits.max_side", limits.max_side, MIN_SIDE, LARGEST_SIDE),
            ("generation_limits.max_frames", limits.max_frames, 1, MOST_FRAMES),
            ("generation.height", clip.height, MIN_SIDE, limits.max_side),
            ("generation.width", clip.width, MIN_SIDE, limits.max_side),
            ("generation.num_frames", clip.num_frames, 1, limits.max_frames),
            ("generation.num_inference_steps", clip.num_inference_steps, 1, MAX_STEPS),
            ("generation.guidance_scale", clip.guidance_scale, 1, MAX_GUIDANCE),
            ("chat.max_new_tokens", chat.max_new_tokens, 1, 8192),
            ("chat.temperature", chat.temperature, 0, 5),
            ("chat.num_frames", chat.num_frames, 1, 64),
        )
        found = [
            f"{label} is {value:g}; it must be from {low:g} to {high:g}."
            for label, value, low, high in ranges
            if not low <= value <= high
        ]
        for label, side in (
            ("generation.height", clip.height),
            ("generation.width", clip.width),
            ("generation_limits.max_side", limits.max_side),
        ):
            if not is_legal_side(side):
                found.append(f"{label} is {side}; it must be a multiple of {SIDE_STEP}.")
        for label, frames in (
            ("generation.num_frames", clip.num_frames),
            ("generation_limits.max_frames", limits.max_frames),
        ):
            if not is_legal_length(frames):
                found.append(f"{label} is {frames}; the autoencoder makes 1, 9, 17, 25 and so on.")
        if "{prompt}" not in self.generation_prompt.user:
            found.append("generation_prompt.user holds no {prompt}, where the words of the prompt belong.")
        if not self.name.strip() or len(self.name.splitlines()) > 1:
            found.append("name must be one line of text.")
        return found

    def save(self, folder: Path) -> None:
        """Write ``haploomni.json`` into a checkpoint's folder."""
        (folder / PROFILE_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class PreviewFactors:
    """``preview.json`` beside an autoencoder, a linear map from latents to colours.

    RGB [3] = latent [16] @ ``factors`` [16, 3] + ``bias`` [3]; ``r2`` is the share of variance explained.
    """

    factors: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    r2: float | None = None

    def save(self, folder: Path) -> None:
        """Write ``preview.json`` into an autoencoder's folder."""
        (folder / PREVIEW_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_profile_file(file: Path) -> CheckpointProfile:
    """A checked profile.

    Raises:
        CheckpointError: not JSON, a key missing or unknown, or a value of the wrong type, out of range or
            contradictory.
    """
    stored = read_json(file)
    if "domain" not in stored and "knows" in stored:  # the key's older word
        stored["domain"] = stored.pop("knows")
    profile: CheckpointProfile = _parse(CheckpointProfile, stored, file, "")
    if found := profile.faults():
        raise CheckpointError(f"{file}: {found[0]}")
    return profile


def read_preview_file(file: Path) -> PreviewFactors:
    """Checked preview factors.

    Raises:
        CheckpointError: not JSON, a key missing or unknown, or not 16 x 3 and 3 finite numbers.
    """
    stored = {"r2": None, **read_json(file)}
    _check_keys(("factors", "bias", "r2"), stored, file, "")
    factors = stored["factors"]
    rows = factors if isinstance(factors, list) else []
    if len(rows) != LATENT_CHANNELS or not all(_is_row(row) for row in rows) or not _is_row(stored["bias"]):
        raise CheckpointError(
            f"{file} must hold factors of {LATENT_CHANNELS} x 3 finite numbers and a bias of 3; "
            "remove it, and the factors are measured when they are needed."
        )
    if not (stored["r2"] is None or _is_number(stored["r2"])):
        raise CheckpointError(f"{file}: r2 must be a number, not {_shown(stored['r2'])}.")
    return PreviewFactors(tuple(tuple(row) for row in rows), tuple(stored["bias"]), stored["r2"])


def released_profile() -> CheckpointProfile:
    """The profile of the released 9B weights, whose folder has none."""
    return read_profile_file(RELEASED_FILE)


def is_released_size(config: HaploOmniConfig) -> bool:
    """Whether the three parts have the released widths and depths."""

    def sizes(one: HaploOmniConfig) -> list[tuple[int, int]]:
        parts = [one.part(name) for name in ("pre", "base", "post")]
        return [(part.hidden_size, part.num_hidden_layers) for part in parts]

    return sizes(config) == sizes(HaploOmniConfig())


def default_profile(config: HaploOmniConfig, num_parameters: int) -> CheckpointProfile:
    """The profile of weights that have none of their own: the released one for its sizes, else a modest one.

    Its largest picture, its usual clip and its longest clip fit the configuration's context beside a prompt.

    Args:
        num_parameters: of the whole model, for its name.
    """
    if is_released_size(config):
        return released_profile()
    context = config.max_position_embeddings - PROMPT_TOKENS  # tokens
    max_side = _largest(range(MIN_SIDE, 1281, SIDE_STEP), lambda side: clip_tokens(1, side) <= context)
    usual_sides = range(MIN_SIDE, min(128, max_side) + 1, SIDE_STEP)
    side = _largest(usual_sides, lambda side: clip_tokens(9, side) <= context)
    max_frames = _largest(range(1, 50, FRAME_STEP), lambda frames: clip_tokens(frames, side) <= context)
    amount = f"{max(1, round(num_parameters / 1e6))} million"
    if num_parameters >= 1e9:
        amount = f"{num_parameters / 1e9:.1f} billion"
    return CheckpointProfile(
        name=f"A HaploOmni of {amount} parameters",
        domain=f"Weights without a {PROFILE_FILE}: what they were trained on is not known.",
        generation=GenerationDefaults(side, side, min(9, max_frames), 25, 6.0),
        generation_limits=GenerationLimits(max_side, max_frames),
        generation_prompt=PromptForm(None, "{prompt}"),
        chat=ChatDefaults(min(256, max(1, config.max_position_embeddings // 4)), 0.0, 4),
    )


def clip_tokens(num_frames: int, side: int) -> int:
    """Tokens of a square clip of ``side`` pixels: its noise tokens, and the timestep's."""
    return noise_tokens(num_frames, side, side) + 1


def _largest(values: Sequence[int], fits: Callable[[int], bool]) -> int:
    """The last value that fits, else the first."""
    return max((value for value in values if fits(value)), default=values[0])


def _is_row(row: object) -> bool:
    return isinstance(row, list) and len(row) == 3 and all(_is_number(value) for value in row)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e9
        and math.isfinite(value)
    )


def _check_keys(wanted: Sequence[str], given: dict[str, Any], file: Path, place: str) -> None:
    for key in wanted:
        if key not in given:
            raise CheckpointError(
                f"{file} lacks the key {place}{key}; add it, or take the file of a checkpoint like it."
            )
    for key in given:
        if key not in wanted:
            near = difflib.get_close_matches(key, wanted, n=1)
            meant = f"did you mean {place}{near[0]}?" if near else f"known are {', '.join(wanted)}."
            raise CheckpointError(f"{file} has the unknown key {place}{key[:80]}; {meant}")


def _parse(kind: Any, given: Any, file: Path, place: str) -> Any:
    """A (nested) dataclass of numbers and texts from a JSON object."""
    if not isinstance(given, dict):
        raise CheckpointError(f"{file}: {place.removesuffix('.')} must be an object, not {_shown(given)}.")
    hints = get_type_hints(kind)  # type of each key
    _check_keys(list(hints), given, file, place)
    return kind(**{name: _value(hints[name], given[name], file, f"{place}{name}") for name in hints})


def _value(kind: Any, given: Any, file: Path, place: str) -> Any:
    if is_dataclass(kind):
        return _parse(kind, given, file, f"{place}.")
    if kind in (int, float):
        if not _is_number(given) or (kind is int and not isinstance(given, int)):
            wanted = "a whole number" if kind is int else "a number"
            raise CheckpointError(f"{file}: {place} must be {wanted}, not {_shown(given)}.")
        return kind(given)
    if given is None and kind == (str | None):
        return None
    if not isinstance(given, str):
        raise CheckpointError(f"{file}: {place} must be a text, not {_shown(given)}.")
    if any("\ud800" <= character <= "\udfff" for character in given):
        raise CheckpointError(f"{file}: {place} holds half a character; write the text again.")
    return given


def _shown(value: object) -> str:
    """A value in an error sentence, however long it is."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
