"""Noise prediction for one prompt under classifier-free guidance."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from core.model.contexts import PromptKVCache
from core.model.modeling import HaploOmniForConditionalGeneration


class Guidance(Enum):
    """How the negative and the positive prompt share the machine."""

    BATCHED = "batched"
    ONE_AT_A_TIME = "one-at-a-time"


class CachedPromptDenoiser:
    """The fast path: the prompts' keys and values are computed once, noise attends to them without masks.

    Args:
        model: of any device and dtype.
        prompts: token ids, the positive prompt alone or [negative, positive].
        scale: of classifier-free guidance.
    """

    def __init__(
        self, model: HaploOmniForConditionalGeneration, prompts: list[list[int]], scale: float
    ) -> None:
        self.model = model
        self.scale = scale
        self.prefixes: list[PromptKVCache] = []
        for ids in prompts:
            self.prefixes += self._prefix(torch.tensor([ids], device=model.device))

    @torch.no_grad()
    def _prefix(self, tokens: Tensor) -> list[PromptKVCache]:
        """One prompt's token ids [1, T] -> its keys and values in every block."""
        return self.model(input_ids=tokens, return_prefix=True).prefix

    @torch.no_grad()
    def predict(self, latents: Tensor, timestep: int, guidance: Guidance = Guidance.BATCHED) -> Tensor:
        """Latents [1, F, 16, h, w] -> guided velocity of the same shape, float32.

        Args:
            timestep: 0 (clean) to 999 (noise).
            guidance: both prompts in one batch, or one after the other (half the memory).
        """
        groups = [self.prefixes]
        if guidance is Guidance.ONE_AT_A_TIME:
            groups = [[prefix] for prefix in self.prefixes]
        rows = []
        for group in groups:
            time = torch.full((len(group),), timestep, device=latents.device)
            batch = latents.expand(len(group), -1, -1, -1, -1)
            rows.append(self.model(latents=batch, timestep=time, prefix=group).sample.float())
        return apply_guidance(torch.cat(rows), self.scale)


class ReferenceDenoiser:
    """The reference path: in every step all of [padding | text | timestep | noise], under a dense mask.

    Args:
        pad_token: fills the shorter prompt on its left; else see :class:`CachedPromptDenoiser`.
    """

    def __init__(
        self, model: HaploOmniForConditionalGeneration, prompts: list[list[int]], scale: float, pad_token: int
    ) -> None:
        self.model = model
        self.scale = scale
        length = max(len(ids) for ids in prompts)
        rows = [[pad_token] * (length - len(ids)) + ids for ids in prompts]
        real = [[0] * (length - len(ids)) + [1] * len(ids) for ids in prompts]
        self.input_ids = torch.tensor(rows, device=model.device)
        self.attention_mask = torch.tensor(real, device=model.device)

    @torch.no_grad()
    def predict(
        self,
        latents: Tensor,
        timestep: int,
        guidance: Guidance = Guidance.BATCHED,  # noqa: ARG002
    ) -> Tensor:
        """Latents [1, F, 16, h, w] -> guided velocity of the same shape, float32; always in one batch."""
        rows = len(self.input_ids)
        time = torch.full((rows,), timestep, device=latents.device)
        batch = latents.expand(rows, -1, -1, -1, -1)
        sample = self.model(
            latents=batch, timestep=time, input_ids=self.input_ids, attention_mask=self.attention_mask
        ).sample
        return apply_guidance(sample.float(), self.scale)


def apply_guidance(rows: Tensor, scale: float) -> Tensor:
    """[negative, positive] predictions [2, F, 16, h, w] -> guided [1, F, 16, h, w]; one row is kept."""
    if len(rows) == 1:
        return rows
    negative, positive = rows[:1], rows[1:]
    return negative + scale * (positive - negative)
