"""Text to video as a stream of denoising steps (spec section 5)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor

from core.errors import NumericalError, PromptError, RequestError
from core.geometry import SPATIAL_COMPRESSION
from core.media.writer import write_clip, write_image
from core.pipelines.decoding import DecodeStep, decode_in_steps
from core.pipelines.guidance import CachedPromptDenoiser, Guidance, ReferenceDenoiser
from core.pipelines.out_of_memory import MemoryPhase, is_out_of_memory, make_room, retry_on_oom
from core.pipelines.preview import LatentRGB
from core.pipelines.runtime import Runtime
from core.processor import prompts
from core.requests import VideoRequest

FPS = 8


@dataclass(frozen=True)
class DenoiseStep:
    """After step ``index`` (from 1) of ``total``: the clean latents as predicted so far.

    ``latents`` are float32 [F, 16, h, w] on the CPU, scaled by ``scaling_factor``.
    """

    index: int
    total: int
    latents: Tensor
    scaling_factor: float
    latent_rgb: LatentRGB

    def preview(self, height: int | None = None, width: int | None = None) -> np.ndarray:
        """A cheap clip of the predicted latents, uint8 RGB [T, height, width, 3]; by default in full size."""
        full = tuple(side * SPATIAL_COMPRESSION for side in self.latents.shape[-2:])
        return self.latent_rgb.render(self.latents, self.scaling_factor, height or full[0], width or full[1])


@dataclass(frozen=True)
class GeneratedVideo:
    """A finished clip: ``frames`` uint8 RGB [T, H, W, 3], frames a second, the recipe that makes it again."""

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
    runtime: Runtime, request: VideoRequest, guidance: Guidance | None = None, reference: bool = False
) -> Iterator[DenoiseStep | DecodeStep | GeneratedVideo]:
    """Denoise and decode one request; close the iterator to stop within a step.

    A :class:`DenoiseStep` follows every denoising step, a :class:`DecodeStep` stands between two pieces of
    the decoding, and the :class:`GeneratedVideo` is the last.

    Args:
        guidance: how the two prompts share the machine, by default as ``runtime`` says; changes no result.
        reference: the full-sequence reference path instead of the fast one.

    Raises:
        RequestError, PromptError: see :func:`check_request`.
        NumericalError: the model or the autoencoder produced NaN or infinity.
        ShortMemoryError: memory ran out, and nothing could be made smaller.
    """
    ids = check_request(runtime, request)
    denoiser: ReferenceDenoiser | CachedPromptDenoiser
    given = (runtime.model, ids, request.guidance_scale)
    if reference:
        denoiser = ReferenceDenoiser(*given, runtime.processor.tokenizer.pad_token_id)
    else:
        denoiser = retry_on_oom(runtime, MemoryPhase.DENOISE, CachedPromptDenoiser, *given)

    def predict(noisy: Tensor, timestep: int) -> Tensor:
        return denoiser.predict(noisy, timestep, guidance or runtime.guidance)

    # pure noise, drawn on the CPU: a seed is the same clip on every device
    scheduler = CogVideoXDDIMScheduler.from_config(runtime.scheduler.config)
    scheduler.set_timesteps(request.num_inference_steps)
    generator = torch.Generator().manual_seed(request.seed)
    latents = torch.randn(request.latent_shape, generator=generator).to(runtime.device)  # (1, F, 16, h, w)
    scaling_factor = runtime.vae.config.scaling_factor
    total = len(scheduler.timesteps)
    # from noise to clean latents, step by step
    for index, timestep in enumerate(scheduler.timesteps.tolist(), start=1):
        velocity = retry_on_oom(runtime, MemoryPhase.DENOISE, predict, latents, timestep)
        with torch.no_grad():
            latents, clean = scheduler.step(velocity, timestep, latents, eta=0.0, return_dict=False)
        if not bool(torch.isfinite(latents).all()):
            raise NumericalError(
                f"Step {index} of {total} gave values that are no numbers; try bfloat16 or float32."
            )
        yield DenoiseStep(index, total, clean[0].float().cpu(), scaling_factor, runtime.latent_rgb)
    frames = yield from decode(runtime, latents)
    yield GeneratedVideo(frames, FPS, {**asdict(request), "fps": FPS, "model": runtime.profile.name})


def check_request(runtime: Runtime, request: VideoRequest) -> list[list[int]]:
    """Everything that can be known of a request before any work; memory aside, a clip that passes is made.

    Returns:
        Token ids of the prompts: the negative one first, where the clip is guided.

    Raises:
        RequestError, PromptError: see :meth:`VideoRequest.validate`; or a prompt or clip beyond the context.
    """
    limits = runtime.profile.generation_limits
    request.validate(limits.max_side, limits.max_frames)
    texts = [request.prompt]
    if request.is_guided:
        texts = [request.negative_prompt, request.prompt]
    ids = [encode_prompt(runtime, text) for text in texts]
    _check_context(runtime, ids, request.noise_tokens)
    return ids


def encode_prompt(runtime: Runtime, text: str) -> list[int]:
    """Token ids of a prompt in the form the weights were trained with."""
    form = runtime.profile.generation_prompt
    messages = []
    if form.system:
        messages.append({"role": "system", "content": form.system})
    messages.append({"role": "user", "content": form.user.replace("{prompt}", text)})
    pieces = prompts.render(
        runtime.processor.tokenizer, runtime.processor.chat_template, messages, reply=True
    )
    return prompts.encode(runtime.processor.tokenizer, pieces, {})


def _check_context(runtime: Runtime, ids: list[list[int]], noise: int) -> None:
    text = max(map(len, ids))
    limit = runtime.model.config.max_position_embeddings
    if text > limit // 2:
        raise PromptError(f"The prompt takes {text} tokens; at most {limit // 2} fit. Please shorten it.")
    if text + 1 + noise > limit:
        raise RequestError(
            f"The clip takes {text + 1 + noise} tokens but the model's context holds {limit}; "
            "choose a smaller size or fewer frames."
        )


def decode(runtime: Runtime, latents: Tensor) -> Generator[DecodeStep, None, np.ndarray]:
    """Scaled latents [1, F, 16, h, w] -> uint8 RGB frames [T, H, W, 3], in steps.

    Where memory runs out, decoding begins anew in smaller pieces.

    Raises:
        NumericalError: the autoencoder produced NaN or infinity.
        ShortMemoryError: memory ran out, and nothing could be made smaller.
    """
    raw = (latents / runtime.vae.config.scaling_factor).permute(0, 2, 1, 3, 4)  # (1, 16, F, h, w)
    video = None
    while video is None:
        try:
            video = yield from decode_in_steps(runtime.vae, raw)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if video is None:
            make_room(runtime, MemoryPhase.DECODE)
    video = video[0].float()  # (3, T, H, W), -1 to 1
    if not bool(torch.isfinite(video).all()):
        raise NumericalError("The autoencoder gave values that are no numbers; try float32 or bfloat16.")
    return ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()
