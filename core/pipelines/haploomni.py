"""HaploOmni: one loaded model behind chat and text to video."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from core.devices import resolve_device, resolve_dtype
from core.pipelines import chat as chatting
from core.pipelines import text_to_video as videos
from core.pipelines.guidance import Guidance
from core.pipelines.preview import LatentRGB, measure_latent_rgb
from core.pipelines.thrift import Work
from core.processor.prompts import Message
from core.weights import Holding, LoadedCheckpoint, load_checkpoint


class HaploOmni:
    """A loaded checkpoint and what it can do. Not thread-safe: give one job a turn at a time.

    Attributes:
        model, processor, vae, scheduler: the parts.
        profile: the checkpoint's name, defaults, limits and an honest line about what it knows.
        device: where the model works.
        guidance: how the two prompts of a clip share the machine.
        relieve: asked when memory runs out; makes the work smaller and says how, or None when it cannot.
    """

    def __init__(self, parts: LoadedCheckpoint, device: torch.device) -> None:
        self.model, self.processor, self.vae, self.scheduler = parts.model, parts.processor, parts.vae, parts.scheduler
        self.profile, self.folder, self.device = parts.profile, parts.folder, device
        self.guidance = Guidance.BATCHED
        self.relieve: Callable[[Work], str | None] | None = None
        self._preview = parts.preview

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        vae: str | Path | None = None,
        holding: Holding | None = None,
    ) -> HaploOmni:
        """Load a checkpoint: None is the bundled one, a folder is read, a hub id is downloaded.

        Args:
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
            vae: folder or hub id of the autoencoder and scheduler, where the checkpoint has none.
            holding: quantized, offloaded or both; by default as stored, on one device.

        Raises:
            CheckpointError: a missing, cut or foreign file, by name.
            RequestError: an unknown or absent device or dtype.
        """
        where = resolve_device(device)
        return cls(load_checkpoint(checkpoint, where, resolve_dtype(dtype, where), vae, holding), where)

    @cached_property
    def latent_rgb(self) -> LatentRGB:
        """Factors for cheap previews: the checkpoint's own, or measured once on its autoencoder."""
        return LatentRGB.from_dict(self._preview) if self._preview else measure_latent_rgb(self.vae)

    def chat(
        self,
        messages: Sequence[Message],
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Answer a conversation in the transformers chat format, piece by piece.

        Args:
            messages: ``{"role", "content"}``; content is a text or parts ``{"type": "text"|"image"|"video", ...}`` with
                ``"text"``, ``"path"``, ``"image"`` (PIL) or ``"video"`` (uint8 [T, H, W, 3]); a video part may carry
                ``num_frames``, ``start_s`` and ``end_s``.
            max_new_tokens, temperature: the checkpoint's own defaults where left out; temperature 0 is greedy.
            seed: makes sampling repeatable.

        Raises:
            PromptError, MediaError, RequestError: on the first ``next``, one sentence each.
        """
        own = self.profile["chat"]
        sampling = chatting.Sampling(
            own["max_new_tokens"] if max_new_tokens is None else max_new_tokens,
            own["temperature"] if temperature is None else temperature,
            top_p,
            top_k,
            repetition_penalty,
            seed,
        )
        return chatting.chat(self, messages, sampling)

    def video_request(self, prompt: str, negative_prompt: str = "", **given: Any) -> videos.VideoRequest:
        """A request with the checkpoint's own default for every option left out (None) and a fresh seed."""
        values = {**self.profile["generation"], "seed": None, **{k: v for k, v in given.items() if v is not None}}
        if values["seed"] is None:
            values["seed"] = secrets.randbelow(videos.MAX_SEED + 1)
        return videos.VideoRequest(prompt, negative_prompt, **values)

    def text_to_video(
        self,
        prompt: str,
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
    ) -> Iterator[videos.DenoiseStep | videos.GeneratedVideo]:
        """Make a clip from text: one :class:`DenoiseStep` a step, then the :class:`GeneratedVideo`.

        Args:
            height, width: pixels, multiples of 16.
            num_frames: 1 (an image), 9, 17, 25, ...
            guidance_scale: 1 means no guidance.
            seed: the same seed and settings give the same clip; drawn at random when left out (see the recipe).

        Raises:
            PromptError, RequestError: on the first ``next``, one sentence each.
        """
        request = self.video_request(
            prompt,
            negative_prompt,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            seed=seed,
        )
        return videos.text_to_video(self, request)
