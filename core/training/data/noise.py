"""Latents to denoise, with their prompts, noise and timesteps."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.training.data.tokenization import CachedTokenizer

UNPROMPTED = 0.1  # of the rows have no prompt, for guidance
TIMESTEPS = 1000  # of the schedule
MIDDLE = 0.6  # how much more often timesteps are drawn in the middle of the schedule; 0: uniformly


@dataclass
class NoiseBatch:
    """Latents to denoise.

    Args:
        ids, attention_mask: of the prompts [B, T], padded on the left.
        latents, noise: [B, F, 16, h, w].
        timestep: [B], of the schedule's 1000.
    """

    ids: Tensor
    attention_mask: Tensor
    latents: Tensor
    noise: Tensor
    timestep: Tensor

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.latents)


def noise_rows(
    tokenizer: CachedTokenizer,
    rngs: Sequence[random.Random],
    latents: Tensor,
    texts: Sequence[str],
    timestep_fractions: Sequence[float],
) -> NoiseBatch:
    """Latents with their prompts, noise and timesteps.

    Args:
        rngs: one a row; draws its noise.
        latents: [B, F, 16, h, w].
        texts: the rows' prompts; "" for none.
        timestep_fractions: the rows' timesteps as fractions of the schedule, in [0, 1).
    """
    prompts = [tokenizer.encode_prompt(text) for text in texts]
    length = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    noise = torch.stack([seeded_noise(rng, latents.shape[1:]) for rng in rngs])
    timestep = torch.tensor([int(TIMESTEPS * fraction) for fraction in timestep_fractions])
    return NoiseBatch(ids, mask, latents.float(), noise, timestep)


def seeded_noise(rng: random.Random, shape: Sequence[int]) -> Tensor:
    """Normal noise of any shape, drawn on the CPU with a seed from ``rng``."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(rng.getrandbits(60)))


def bias_timesteps_to_middle(fraction: float) -> float:
    """A fraction of the schedule moved towards its middle, where shapes are decided.

    Uniform draws fall there two and a half times as densely, and at both ends .6 times.
    The middle was found to be worth more by Esser et al. 2024, section 3.1.
    """
    return fraction + MIDDLE * math.sin(2 * math.pi * fraction) / (2 * math.pi)


def bias_timesteps_to_noise(fraction: float) -> float:
    """A fraction of the schedule moved towards its noisy end, where motion is decided.

    Twice as many draws as uniform ones fall there, few at the other end.
    """
    return math.sqrt(fraction)
