"""HaploOmni: one loaded model behind chat and text to video."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from core.devices import resolve_device, resolve_dtype
from core.errors import CheckpointError
from core.pipelines import chat as chatting
from core.pipelines import text_to_video as videos
from core.pipelines.prefill import PrefillStep
from core.pipelines.runtime import Runtime
from core.processor.prompts import Message
from core.requests import MAX_SEED, Sampling, VideoRequest
from core.weights import LoadOptions, load_checkpoint


class HaploOmni(Runtime):
    """A loaded checkpoint and what it can do. Not thread-safe: give one job a turn at a time."""

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        vae: str | Path | None = None,
        options: LoadOptions | None = None,
    ) -> HaploOmni:
        """Load a checkpoint: None is the bundled one, a folder is read, a hub id is downloaded.

        Args:
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, or PyTorch's own value.
            dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``, or PyTorch's own value.
            vae: folder or hub id of the autoencoder and scheduler, where the checkpoint has none.
            options: quantized, offloaded or both; by default as stored, on one device.

        Raises:
            CheckpointError: a missing, cut or foreign file, by name.
            RequestError: an unknown or absent device or dtype.
        """
        where = resolve_device(device)
        return cls(load_checkpoint(checkpoint, where, resolve_dtype(dtype, where), vae, options), where)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write everything as one checkpoint folder: model, processor, autoencoder, scheduler and profile.

        Raises:
            CheckpointError: the folder is not empty, and what lies there could be taken for a part of this.
        """
        target = Path(folder)
        if target.is_dir() and any(target.iterdir()):
            raise CheckpointError(f"{target} is not empty; name another folder.")
        self.model.save_pretrained(target)
        self.processor.save_pretrained(target)
        self.vae.save_pretrained(target / "vae")
        self.scheduler.save_pretrained(target / "scheduler")
        self.profile.save(target)
        if self._preview is not None:
            self._preview.save(target)

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
            messages: ``{"role", "content"}``; content is a text, or a list of parts.
                A part has the ``"type"`` ``"text"``, ``"image"`` or ``"video"``.
                It holds ``"text"``, ``"path"``, ``"image"`` (PIL) or ``"video"`` (uint8 RGB [T, H, W, 3]).
                A video part may carry ``num_frames``, ``start_s`` and ``end_s``.
            max_new_tokens, temperature: by default the checkpoint's own; temperature 0 is greedy.
            top_p: the share of probability that is drawn from, above 0 to 1.
            top_k: how many tokens are drawn from; 0 means all.
            repetition_penalty: above 1 makes words that were said less likely.
            seed: makes sampling repeatable.

        Raises:
            PromptError, MediaError, RequestError: on the first ``next``, one sentence each.
        """
        own = self.profile.chat
        sampling = Sampling(
            own.max_new_tokens if max_new_tokens is None else max_new_tokens,
            own.temperature if temperature is None else temperature,
            top_p,
            top_k,
            repetition_penalty,
            seed,
        )
        return chatting.chat(self, messages, sampling)

    def chat_steps(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[PrefillStep | str]:
        """:meth:`chat` with every step of it, for who shares the model's time out among several.

        A :class:`PrefillStep` stands before every chunk of a long conversation.
        Then each token is a piece of text, an empty one where it does not complete a character.

        Raises:
            PromptError, MediaError, RequestError: on the first ``next``, one sentence each.
        """
        return chatting.chat_steps(self, messages, sampling)

    def video_request(self, prompt: str, negative_prompt: str = "", **given: Any) -> VideoRequest:
        """A request with the checkpoint's own default for every option left out (None) and a fresh seed."""
        values = {
            **asdict(self.profile.generation),
            "seed": None,
            **{k: v for k, v in given.items() if v is not None},
        }
        if values["seed"] is None:
            values["seed"] = secrets.randbelow(MAX_SEED + 1)
        return VideoRequest(prompt, negative_prompt, **values)

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
    ) -> Iterator[videos.DenoiseStep | videos.DecodeStep | videos.GeneratedVideo]:
        """Make a clip from text: one :class:`DenoiseStep` a step, then the :class:`GeneratedVideo`.

        A long clip is decoded in pieces, with a :class:`DecodeStep` between two of them.

        Args:
            height, width: pixels, multiples of 16.
            num_frames: 1 (an image), 9, 17, 25, ...
            num_inference_steps: denoising steps.
            guidance_scale: 1 means no guidance.
            seed: the same seed and settings give the same clip; by default drawn at random (see the recipe).

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
