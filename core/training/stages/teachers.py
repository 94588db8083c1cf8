"""The priors as teachers: what they make of the very tokens that the model learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel, Qwen2ForCausalLM

from core.model import masks
from core.training.data.noise import NoiseBatch


@dataclass
class Teachers:
    """The priors, for the stages that learn from them."""

    vision: CLIPVisionModel
    language: Qwen2ForCausalLM
    video: Any


@torch.no_grad()
def patch_features(vision: CLIPVisionModel, tiles: Tensor) -> Tensor:
    """The vision prior's last states of every patch, float32: [T, 3, side, side] -> [T, P * P, D]."""
    return vision(tiles).last_hidden_state[:, 1:].float()  # the first is the class token's


@torch.no_grad()
def encode_prompts(language: Qwen2ForCausalLM, batch: NoiseBatch, device: torch.device) -> Tensor:
    """The language prior's last states of the prompts [B, T, D], 0 on padding.

    Padding is neither seen nor counted: a prompt has the states that it has alone.
    """
    real = batch.attention_mask.to(device)
    given = {"attention_mask": real, "position_ids": masks.positions(real)}
    states = language.model(batch.ids.to(device), use_cache=False, **given).last_hidden_state
    # a padding query sees nothing; what it comes to is not even sure to be a number
    return states.masked_fill(real[..., None] == 0, 0.0)


def teacher_velocity(
    teacher: CogVideoXTransformer3DModel,
    mixed: Tensor,
    states: Tensor,
    attention_mask: Tensor,
    timestep: Tensor,
) -> Tensor:
    """The video prior's prediction for noisy latents, of their shape [B, F, 16, h, w].

    Args:
        teacher: the video prior.
        mixed: the noisy latents.
        states: of the prompts [B, T, D], 0 on padding.
        attention_mask: [B, T], 1 on real tokens.
        timestep: [B], 0 to 999.
    """
    length = teacher.config.max_text_seq_length
    # the prior keeps its first places for words: real tokens move there, in their order
    front = attention_mask.to(states.device).argsort(dim=1, descending=True, stable=True)
    states = states.gather(1, front[..., None].expand_as(states))
    states = F.pad(states, (0, 0, 0, max(0, length - states.shape[1])))[:, :length]
    return teacher(mixed, states.to(mixed.dtype), timestep, return_dict=False)[0]
