"""Feature pre-scaling (paper section 3.2): how loud every modality is at the connectors, and starting values from it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn
from transformers import Qwen2ForCausalLM

from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.batches import IGNORE, NoiseBatch, TalkBatch
from core.training.losses import diffusion_loss, language_states, next_token_loss

Amplitudes = dict[str, dict[str, float]]
MODALITIES = ("words", "image", "video", "timestep", "noise")


def modalities(model: HaploOmniForConditionalGeneration, batch: TalkBatch | NoiseBatch, length: int) -> Tensor:
    """Which modality every token of a batch is: indices into MODALITIES, -1 on padding. [B, S]"""
    if isinstance(batch, TalkBatch):
        kinds = torch.zeros_like(batch.ids)
        kinds[batch.ids == model.config.image_token_index] = MODALITIES.index("image")
        kinds[batch.ids == model.config.video_token_index] = MODALITIES.index("video")
        kinds[batch.ids == model.config.pad_token_id] = -1
        return kinds
    text = batch.ids.shape[1]
    kinds = torch.full((len(batch.ids), length), MODALITIES.index("noise"))
    kinds[:, :text] = torch.where(batch.attention_mask.bool(), 0, -1)
    kinds[:, text] = MODALITIES.index("timestep")
    return kinds


@contextmanager
def _watched(model: HaploOmniForConditionalGeneration) -> Any:
    """Collects what enters and leaves both connectors while the context lasts."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            seen[f"{name} in"], seen[f"{name} out"] = given[0].detach().float(), output.detach().float()

        return hook

    connectors = {"pre": model.model.pre_connector, "post": model.model.post_connector}
    hooks = [connector.register_forward_hook(watch(name)) for name, connector in connectors.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def measure_amplitudes(
    model: HaploOmniForConditionalGeneration, scheduler: Any, batches: Iterable[TalkBatch | NoiseBatch], device: torch.device
) -> Amplitudes:
    """Root mean square of the features of every modality at each side of both connectors: {"pre in": {"words": ...}, ...}."""
    squares: dict[tuple[str, str], float] = {}
    tokens: dict[tuple[str, str], int] = {}
    for batch in batches:
        with _watched(model) as seen:
            if isinstance(batch, TalkBatch):
                next_token_loss(model, batch, device)
            else:
                diffusion_loss(model, scheduler, batch, device)
        for side, features in seen.items():
            kinds = modalities(model, batch, features.shape[1]).to(device)
            for number, modality in enumerate(MODALITIES):
                own = features[kinds == number]
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
    batches: Iterable[TalkBatch | NoiseBatch],
    device: torch.device,
) -> dict[str, float]:
    """How loud the features are that the base and the post part grew up with.

    For the base part the language prior's words, for the post part what the video prior makes of words and of noise; the
    latter is left out where there is nothing to denoise.
    """
    wanted: dict[str, float] = {}
    for batch in batches:
        words = language.get_input_embeddings()(batch.ids.to(device))
        if isinstance(batch, TalkBatch):
            wanted.setdefault("pre", float(words[batch.labels.to(device) != IGNORE].float().square().mean().sqrt()))
            continue
        real = batch.attention_mask.bool().to(device)
        states = language_states(language, batch, device)[real]
        read = [video.patch_embed.text_proj(states), video.patch_embed.proj(batch.noise.flatten(0, 1).to(device))]
        post = torch.stack([features.float().square().mean().sqrt().log() for features in read]).mean().exp()
        wanted |= {"pre": float(words[real].float().square().mean().sqrt()), "post": float(post)}
    return wanted


@torch.no_grad()
def prescale(model: HaploOmniForConditionalGeneration, amplitudes: Amplitudes, wanted: dict[str, float]) -> dict[str, float]:
    """Set the connectors' scales so that what leaves them is as loud as what their next part expects.

    The pre-norm has made all modalities alike; the scale is what the mean over them (geometric, each counting once)
    needs. Returns the factor of each connector that has a scale.
    """
    factors = {}
    for name, connector in (("pre", model.model.pre_connector), ("post", model.model.post_connector)):
        if connector.scale is not None and name in wanted:
            loud = torch.tensor(list(amplitudes[f"{name} out"].values())).log().mean().exp()
            factors[name] = round(wanted[name] / float(loud), 5)
            connector.scale.mul_(factors[name])
    return factors
