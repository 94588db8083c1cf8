"""Text to video as a stream of denoising steps (spec section 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor

from core.config import LATENT_CHANNELS, LATENT_PATCH, SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION
from core.devices import working_device
from core.errors import NumericalError, PromptError, RequestError
from core.media.writer import write_clip, write_image
from core.pipelines.guidance import Guidance, PlainDenoiser, PrefixDenoiser
from core.pipelines.preview import LatentRGB
from core.pipelines.thrift import Work, with_relief
from core.processor import prompts

if TYPE_CHECKING:
    from core.pipelines.haploomni import HaploOmni

FPS = 8
SIDE_STEP = SPATIAL_COMPRESSION * LATENT_PATCH
FRAME_STEP = 2 * TEMPORAL_COMPRESSION
MIN_SIDE = 32
MAX_STEPS = 200
MAX_GUIDANCE = 30.0
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class VideoRequest:
    """Everything that decides a clip: the same request gives the same clip."""

    prompt: str
    negative_prompt: str
    height: int
    width: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float
    seed: int

    def validate(self, max_side: int, max_frames: int) -> None:
        """Raises RequestError or PromptError with the first value that cannot be, and the nearest that can."""
        if not self.prompt.strip():
            raise PromptError("The prompt is empty; describe the clip in a few words.")
        for label, side in (("height", self.height), ("width", self.width)):
            if side % SIDE_STEP or not MIN_SIDE <= side <= max_side:
                near = min(max(MIN_SIDE, round(side / SIDE_STEP) * SIDE_STEP), max_side // SIDE_STEP * SIDE_STEP)
                raise RequestError(
                    f"The {label} {side} is not possible: it must be a multiple of {SIDE_STEP} from {MIN_SIDE} to {max_side}; "
                    f"the nearest is {near}."
                )
        if (self.num_frames - 1) % FRAME_STEP or not 1 <= self.num_frames <= max_frames:
            near = min(max(0, round((self.num_frames - 1) / FRAME_STEP)) * FRAME_STEP + 1, max_frames)
            raise RequestError(
                f"{self.num_frames} frames are not possible: the autoencoder makes 1, 9, 17, 25 and so on up to {max_frames}; "
                f"the nearest is {near}."
            )
        if not 1 <= self.num_inference_steps <= MAX_STEPS:
            raise RequestError(f"{self.num_inference_steps} steps are not possible; choose 1 to {MAX_STEPS}.")
        if not (math.isfinite(self.guidance_scale) and 1.0 <= self.guidance_scale <= MAX_GUIDANCE):
            raise RequestError(
                f"A guidance scale of {self.guidance_scale:g} is not possible; choose 1 (none) to {MAX_GUIDANCE:g}."
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise RequestError(f"The seed {self.seed} is not possible; choose 0 to {MAX_SEED}.")


@dataclass(frozen=True)
class DenoiseStep:
    """After step ``index`` of ``total``: the clean latents as predicted so far, [F, 16, h, w], scaled."""

    index: int
    total: int
    latents: Tensor
    scaling_factor: float
    latent_rgb: LatentRGB

    def preview(self, height: int | None = None, width: int | None = None) -> np.ndarray:
        """A cheap clip of the predicted latents, uint8 [T, height, width, 3]; by default at the final size."""
        full = tuple(side * SPATIAL_COMPRESSION for side in self.latents.shape[-2:])
        return self.latent_rgb.render(self.latents, self.scaling_factor, height or full[0], width or full[1])


@dataclass(frozen=True)
class GeneratedVideo:
    """A finished clip: ``frames`` uint8 [T, H, W, 3], its rate and the recipe that makes it again."""

    frames: np.ndarray
    fps: int
    recipe: dict[str, Any]

    def save(self, path: str | Path) -> Path:
        """Write an MP4, or a PNG for a path ending so (a single frame's natural form).

        Raises:
            MediaError: the file cannot be written.
        """
        if str(path).lower().endswith(".png"):
            return write_image(self.frames[0], path, self.recipe)
        return write_clip(self.frames, path, self.fps, self.recipe)


def text_to_video(
    omni: HaploOmni, request: VideoRequest, guidance: Guidance | None = None, plain: bool = False
) -> Iterator[DenoiseStep | GeneratedVideo]:
    """Denoise and decode one request; close the iterator to stop within a step.

    Args:
        guidance: how the two prompts share the machine, by default as ``omni`` says; the result is the same.
        plain: the full-sequence reference path instead of the fast one.

    Raises:
        RequestError, PromptError: see :meth:`VideoRequest.validate`; also a prompt beyond the context.
        NumericalError: the model or the autoencoder produced NaN or infinity.
        ShortMemoryError: memory ran out, and nothing could be made smaller.
    """
    limits = omni.profile["generation_limits"]
    request.validate(limits["max_side"], limits["max_frames"])
    texts = [request.negative_prompt, request.prompt] if request.guidance_scale > 1 else [request.prompt]
    ids = [generation_ids(omni, text) for text in texts]
    shape = latent_shape(request)
    _check_context(omni, ids, shape)
    denoiser: PlainDenoiser | PrefixDenoiser
    if plain:
        denoiser = PlainDenoiser(omni.model, ids, request.guidance_scale, omni.processor.tokenizer.pad_token_id)
    else:
        denoiser = with_relief(omni, Work.DENOISE, PrefixDenoiser, omni.model, ids, request.guidance_scale)

    def predict(noisy: Tensor, timestep: int) -> Tensor:
        return denoiser.predict(noisy, timestep, guidance or omni.guidance)

    scheduler = CogVideoXDDIMScheduler.from_config(omni.scheduler.config)
    scheduler.set_timesteps(request.num_inference_steps)
    generator = torch.Generator().manual_seed(request.seed)
    latents = torch.randn(shape, generator=generator).to(omni.device)
    scaling_factor = omni.vae.config.scaling_factor
    total = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps.tolist(), start=1):
        velocity = with_relief(omni, Work.DENOISE, predict, latents, timestep)
        with torch.no_grad():
            latents, clean = scheduler.step(velocity, timestep, latents, eta=0.0, return_dict=False)
        if not bool(torch.isfinite(latents).all()):
            raise NumericalError(f"Step {index} of {total} gave values that are no numbers; try bfloat16 or float32.")
        yield DenoiseStep(index, total, clean[0].float().cpu(), scaling_factor, omni.latent_rgb)
    frames = with_relief(omni, Work.DECODE, decode, omni, latents)
    yield GeneratedVideo(frames, FPS, {**asdict(request), "fps": FPS, "model": omni.profile["name"]})


def generation_ids(omni: HaploOmni, text: str) -> list[int]:
    """Token ids of a prompt in the form the weights were trained with."""
    form = omni.profile["generation_prompt"]
    messages = [{"role": "system", "content": form["system"]}] if form["system"] else []
    messages.append({"role": "user", "content": form["user"].replace("{prompt}", text)})
    pieces = prompts.render(omni.processor.tokenizer, omni.processor.chat_template, messages, reply=True)
    return prompts.encode(omni.processor.tokenizer, pieces, {})


def latent_shape(request: VideoRequest) -> tuple[int, int, int, int, int]:
    """[1, F, 16, h, w] of a request."""
    frames = (request.num_frames - 1) // TEMPORAL_COMPRESSION + 1
    return (1, frames, LATENT_CHANNELS, request.height // SPATIAL_COMPRESSION, request.width // SPATIAL_COMPRESSION)


def _check_context(omni: HaploOmni, ids: list[list[int]], shape: tuple[int, ...]) -> None:
    noise = shape[1] * shape[3] * shape[4] // LATENT_PATCH**2
    text, limit = max(map(len, ids)), omni.model.config.max_position_embeddings
    if text > limit // 2:
        raise PromptError(f"The prompt takes {text} tokens; at most {limit // 2} fit. Please shorten it.")
    if text + 1 + noise > limit:
        raise RequestError(
            f"The clip takes {text + 1 + noise} tokens but the model's context holds {limit}; "
            "choose a smaller size or fewer frames."
        )


@torch.no_grad()
def decode(omni: HaploOmni, latents: Tensor) -> np.ndarray:
    """Scaled latents [1, F, 16, h, w] -> uint8 frames [T, H, W, 3].

    Raises:
        NumericalError: the autoencoder produced NaN or infinity.
    """
    raw = (latents / omni.vae.config.scaling_factor).permute(0, 2, 1, 3, 4).to(working_device(omni.vae), omni.vae.dtype)
    video = omni.vae.decode(raw).sample[0].float()  # (3, T, H, W)
    if not bool(torch.isfinite(video).all()):
        raise NumericalError("The autoencoder gave values that are no numbers; try float32 or bfloat16.")
    return ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()
