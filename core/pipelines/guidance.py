"""Noise prediction for one prompt under classifier-free guidance."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from core.model.contexts import TextPrefix
from core.model.modeling import HaploOmniForConditionalGeneration


class Guidance(Enum):
    """How the negative and the positive prompt share the machine."""

    BATCHED = "batched"
    ONE_AT_A_TIME = "one-at-a-time"


class PrefixDenoiser:
    """The fast path: the prompts' keys and values are computed once, noise attends to them without masks.

    Args:
        model: of any device and dtype.
        prompts: token ids, the positive prompt alone or [negative, positive].
        scale: of classifier-free guidance.
    """

    def __init__(
        self,
        model: HaploOmniForConditionalGeneration,
        prompts: list[list[int]],
        scale: float,
    ) -> None:
        self.model, self.scale = model, scale
        self.prefixes: list[TextPrefix] = []
        for ids in prompts:
            tokens = torch.tensor([ids], device=model.device)
            self.prefixes += self._prefix(tokens)

    @torch.no_grad()
    def _prefix(self, tokens: Tensor) -> list[TextPrefix]:
        return self.model(input_ids=tokens, return_prefix=True).prefix

    @torch.no_grad()
    def predict(self, latents: Tensor, timestep: int, guidance: Guidance = Guidance.BATCHED) -> Tensor:
        """Latents [1, F, 16, h, w] -> guided velocity of the same shape, float32.

        Args:
            guidance: both prompts in one batch, or one after the other (half the memory).
        """
        groups = [self.prefixes] if guidance is Guidance.BATCHED else [[prefix] for prefix in self.prefixes]
        rows = []
        for group in groups:
            time = torch.full((len(group),), timestep, device=latents.device)
            batch = latents.expand(len(group), -1, -1, -1, -1)
            rows.append(self.model(latents=batch, timestep=time, prefix=group).sample.float())
        return combine(torch.cat(rows), self.scale)


class PlainDenoiser:
    """The reference path: the full sequence [padding | text | timestep | noise] under a dense mask in every step."""

    def __init__(self, model: HaploOmniForConditionalGeneration, prompts: list[list[int]], scale: float, pad_token: int) -> None:
        self.model, self.scale = model, scale
        length = max(len(ids) for ids in prompts)
        rows = [[pad_token] * (length - len(ids)) + ids for ids in prompts]
        real = [[0] * (length - len(ids)) + [1] * len(ids) for ids in prompts]
        self.input_ids = torch.tensor(rows, device=model.device)
        self.attention_mask = torch.tensor(real, device=model.device)

    @torch.no_grad()
    def predict(self, latents: Tensor, timestep: int, guidance: Guidance = Guidance.BATCHED) -> Tensor:  # noqa: ARG002
        """Latents [1, F, 16, h, w] -> guided velocity of the same shape, float32; always in one batch."""
        rows = len(self.input_ids)
        time = torch.full((rows,), timestep, device=latents.device)
        batch = latents.expand(rows, -1, -1, -1, -1)
        sample = self.model(latents=batch, timestep=time, input_ids=self.input_ids, attention_mask=self.attention_mask).sample
        return combine(sample.float(), self.scale)


def combine(rows: Tensor, scale: float) -> Tensor:
    """[negative, positive] predictions -> guided prediction; a single row passes through."""
    if len(rows) == 1:
        return rows
    negative, positive = rows[:1], rows[1:]
    return negative + scale * (positive - negative)
