"""Feature pre-scaling (paper section 3.2): how loud every modality is at the connectors, and their scales."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor
from transformers import Qwen2ForCausalLM

from core.model.contexts import StackInput
from core.model.decoder import HaploOmniModel
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.data.noise import NoiseBatch
from core.training.data.packing import PackedBatch
from core.training.data.tokenization import IGNORE
from core.training.stages.losses import training_input
from core.training.stages.teachers import encode_prompts

Amplitudes = dict[str, dict[str, float]]
MODALITIES = ("words", "image", "video", "timestep", "noise")


def modalities(
    model: HaploOmniForConditionalGeneration, batch: PackedBatch | NoiseBatch, length: int
) -> Tensor:
    """Which modality every token of a batch is: indices into MODALITIES [B, S], -1 on padding.

    Args:
        length: S, of the stream; a batch to denoise has its prompts' ids alone.
    """
    if isinstance(batch, PackedBatch):
        kinds = torch.zeros_like(batch.ids)
        kinds[batch.ids == model.config.image_token_index] = MODALITIES.index("image")
        kinds[batch.ids == model.config.video_token_index] = MODALITIES.index("video")
        kinds[batch.attention_mask == 0] = -1
        return kinds
    text = batch.ids.shape[1]
    kinds = torch.full((len(batch.ids), length), MODALITIES.index("noise"))
    kinds[:, :text] = torch.where(batch.attention_mask.bool(), 0, -1)
    kinds[:, text] = MODALITIES.index("timestep")
    return kinds


def _sides(core: HaploOmniModel, given: StackInput) -> dict[str, Tensor]:
    """What enters and leaves both connectors [B, S, D]; the decoder runs as far as the second."""
    encoded = core.forward_pre(*given)
    states = core.forward_base(encoded, given.position_ids, given.context)
    return {
        "pre in": encoded,
        "pre out": core.enter_base(encoded),
        "post in": states,
        "post out": core.enter_post(states),
    }


@torch.no_grad()
def measure_amplitudes(
    model: HaploOmniForConditionalGeneration,
    scheduler: Any,
    batches: Iterable[PackedBatch | NoiseBatch],
    device: torch.device,
) -> Amplitudes:
    """Root mean square of the features of every modality at each side of both connectors.

    Returns:
        {"pre in": {"words": 0.7, ...}, "pre out": ..., "post in": ..., "post out": ...}.
    """
    squares: dict[tuple[str, str], float] = {}
    tokens: dict[tuple[str, str], int] = {}
    for batch in batches:
        given = training_input(model, scheduler, batch, device)
        kinds = modalities(model, batch, given.embeds.shape[1]).to(device)
        for side, features in _sides(model.model, given).items():
            for number, modality in enumerate(MODALITIES):
                own = features[kinds == number].float()  # (K, D)
                if len(own):
                    key = side, modality
                    squares[key] = squares.get(key, 0.0) + float(own.square().mean(-1).sum())
                    tokens[key] = tokens.get(key, 0) + len(own)
    table: Amplitudes = {}
    for (side, modality), total in squares.items():
        table.setdefault(side, {})[modality] = round((total / tokens[side, modality]) ** 0.5, 5)
    return table


@torch.no_grad()
def wanted_amplitudes(
    language: Qwen2ForCausalLM,
    video: CogVideoXTransformer3DModel,
    batches: Iterable[PackedBatch | NoiseBatch],
    device: torch.device,
) -> dict[str, float]:
    """How loud the features are that the base and the post part grew up with.

    For the base part these are the language prior's words.
    For the post part they are what the video prior makes of words and noise, where there is noise.

    Returns:
        Root mean squares, {"pre": ..., "post": ...}.
    """
    wanted: dict[str, float] = {}
    for batch in batches:
        words = language.get_input_embeddings()(batch.ids.to(device))
        if isinstance(batch, PackedBatch):
            wanted.setdefault(
                "pre", float(words[batch.labels.to(device) != IGNORE].float().square().mean().sqrt())
            )
            continue
        real = batch.attention_mask.bool().to(device)
        states = encode_prompts(language, batch, device)[real]
        read = [
            video.patch_embed.text_proj(states),
            video.patch_embed.proj(batch.noise.flatten(0, 1).to(device)),
        ]
        post = torch.stack([features.float().square().mean().sqrt().log() for features in read]).mean().exp()
        wanted |= {"pre": float(words[real].float().square().mean().sqrt()), "post": float(post)}
    return wanted


@torch.no_grad()
def prescale(
    model: HaploOmniForConditionalGeneration, amplitudes: Amplitudes, wanted: dict[str, float]
) -> dict[str, float]:
    """Set the connectors' scales so that what leaves them is as loud as what their next part expects.

    The pre-norm has made all modalities alike.
    The scale is what the mean over them needs (geometric, each counts once).

    Args:
        model: whose connectors are set.
        amplitudes: measured, from :func:`measure_amplitudes`.
        wanted: root mean squares, from :func:`wanted_amplitudes`.

    Returns:
        The factor of each connector that has a scale.
    """
    factors = {}
    for name, connector in (("pre", model.model.pre_connector), ("post", model.model.post_connector)):
        if connector.scale is not None and name in wanted:
            loud = torch.tensor(list(amplitudes[f"{name} out"].values())).log().mean().exp()
            factors[name] = round(wanted[name] / float(loud), 5)
            connector.scale.mul_(factors[name])
    return factors
