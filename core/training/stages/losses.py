"""The losses of the three stages (paper section 3.3), each as a sum over its items."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel, Qwen2ForCausalLM

from core.layers import FullAttention
from core.model.anyres import pack_media
from core.model.contexts import StackInput, generation_input
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.data.noise import NoiseBatch
from core.training.data.packing import PackedBatch
from core.training.data.tokenization import IGNORE
from core.training.stages.stage import Loss
from core.training.stages.teachers import encode_prompts, patch_features, teacher_velocity


def identity_loss(output: Tensor, given: Tensor) -> Tensor:
    """How far tokens [K, D] left what they were, in fractions of their variance: a scalar, summed."""
    error = (output.float() - given.float()).square().mean(-1)
    return (error / given.float().var(-1).clamp(min=1e-6)).sum()


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The same between a student's and a teacher's features [K, D]: a scalar, summed over tokens."""
    return identity_loss(student, teacher.detach())


def per_sample_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of every row of two tensors [B, ...]: [B]."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


def attention_on(device: torch.device) -> Callable[[Tensor], FullAttention]:
    """Attention under a mask [B, 1, S, S], of the kind whose backward pass is fast on the device."""
    return partial(FullAttention, eager=device.type == "cpu")


def training_input(
    model: HaploOmniForConditionalGeneration,
    scheduler: CogVideoXDDIMScheduler,
    batch: PackedBatch | NoiseBatch,
    device: torch.device,
) -> StackInput:
    """What the decoder reads of a batch of either kind, [B, S, pre width]."""
    if isinstance(batch, PackedBatch):
        return dialogue_input(model, batch, device)
    mixed, _, timestep = add_noise(scheduler, batch, device)
    ids = batch.ids.to(device)
    real = batch.attention_mask.to(device)
    return model.noise_input(mixed, model.embed_time(timestep), ids, real, attention_on(device))


# -- dialogues


def dialogue_input(
    model: HaploOmniForConditionalGeneration, batch: PackedBatch, device: torch.device
) -> StackInput:
    """What the decoder reads of a batch of dialogues: words with the media in place, [B, S, pre width]."""
    embeds = model.embed(batch.ids.to(device), **_media(batch, device))
    return StackInput(embeds, batch.position_ids.to(device), attention_on(device)(batch.mask.to(device)))


def _media(batch: PackedBatch, device: torch.device) -> dict[str, Any]:
    """A batch's media as the model takes them: pictures with their sizes, and clips."""
    if not batch.tiles:
        return {}
    # to the device in one piece, then one tensor a medium
    tiles = torch.cat(batch.tiles).to(device).split([len(own) for own in batch.tiles])
    pictures = [own for own, size in zip(tiles, batch.sizes, strict=True) if size is not None]
    clips = [own for own, size in zip(tiles, batch.sizes, strict=True) if size is None]
    return {
        "pixel_values": pictures or None,
        "image_sizes": torch.tensor([size for size in batch.sizes if size is not None]),
        "pixel_values_videos": clips or None,
    }


def answer_logits(
    model: HaploOmniForConditionalGeneration, batch: PackedBatch, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [K, V] of the answers' tokens, their labels [K], and where they are predicted [B, S - 1]."""
    return _read_answers(model, batch, model.model(*dialogue_input(model, batch, device)))


def _read_answers(
    model: HaploOmniForConditionalGeneration, batch: PackedBatch, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    labels = batch.labels.to(hidden.device)[:, 1:]
    counted = labels != IGNORE  # (B, S - 1)
    return model.text_logits(hidden[:, :-1][counted]).float(), labels[counted], counted


def next_token_loss(
    model: HaploOmniForConditionalGeneration, batch: PackedBatch, device: torch.device
) -> Tensor:
    """Cross-entropy of the answers' tokens, summed over them: a scalar."""
    logits, labels, _ = answer_logits(model, batch, device)
    return F.cross_entropy(logits, labels, reduction="sum")


def distilled_next_token_losses(
    model: HaploOmniForConditionalGeneration,
    teacher: CLIPVisionModel,
    batch: PackedBatch,
    device: torch.device,
) -> dict[str, Tensor]:
    """The next token, while image tokens stay what the vision prior makes of them.

    Scalars by the loss's name, each summed over tokens.
    """
    given = dialogue_input(model, batch, device)
    encoded = model.model.forward_pre(*given)
    hidden = model.model.forward_from_base(encoded, given.position_ids, given.context)
    logits, labels, _ = _read_answers(model, batch, hidden)
    return {
        Loss.NEXT_TOKEN.value: F.cross_entropy(logits, labels, reduction="sum"),
        Loss.DISTILLATION.value: _patch_distillation(model, teacher, batch, encoded),
    }


@torch.no_grad()
def answer_accuracy(
    model: HaploOmniForConditionalGeneration, batch: PackedBatch, device: torch.device
) -> tuple[float, float]:
    """Mean cross-entropy of the answers' tokens, and the share of answers with every token chosen right."""
    logits, labels, counted = answer_logits(model, batch, device)
    begins = counted & ~F.pad(counted, (1, 0))[:, :-1]
    answers = begins.flatten().cumsum(0)[counted.flatten()]  # (K,): the answer every token belongs to
    failed = torch.unique(answers[logits.argmax(-1) != labels])
    return float(F.cross_entropy(logits, labels)), 1.0 - len(failed) / max(1, int(begins.sum()))


def pre_warmup_losses(
    model: HaploOmniForConditionalGeneration,
    teacher: CLIPVisionModel,
    batch: PackedBatch,
    device: torch.device,
) -> dict[str, Tensor]:
    """Stage 1, pre-decoder (paper A.3): words pass unchanged, image tokens become the vision prior's.

    Scalars by the loss's name, each summed over tokens.
    """
    given = dialogue_input(model, batch, device)
    entered = model.model.enter_pre(given.embeds)  # (B, S, pre width)
    encoded = model.model.forward_pre(*given)
    words = _words(model, batch).to(device)
    return {
        Loss.IDENTITY.value: identity_loss(encoded[words], entered[words]),
        Loss.DISTILLATION.value: _patch_distillation(model, teacher, batch, encoded),
    }


def pre_warmup_counts(model: HaploOmniForConditionalGeneration, batch: PackedBatch) -> dict[str, int]:
    """Items of :func:`pre_warmup_losses`: words, and image tokens with a teacher."""
    newlines = sum(1 if size is None else model.image_plan(size).height for size in batch.sizes)
    return {
        Loss.IDENTITY.value: int(_words(model, batch).sum()),
        Loss.DISTILLATION.value: int(model.is_media(batch.ids).sum()) - newlines,
    }


def _words(model: HaploOmniForConditionalGeneration, batch: PackedBatch) -> Tensor:
    """Where neither media nor padding stand [B, S]."""
    return ~model.is_media(batch.ids) & batch.attention_mask.bool()


def _patch_distillation(
    model: HaploOmniForConditionalGeneration, teacher: CLIPVisionModel, batch: PackedBatch, encoded: Tensor
) -> Tensor:
    """How far the media's tokens in the pre part's states [B, S, D] are from the vision prior's; summed."""
    device = encoded.device
    student = encoded[model.is_media(batch.ids).to(device)]  # (K, D)
    if not batch.tiles:
        return student.float().sum()  # of nothing
    plans = [None if size is None else model.image_plan(size) for size in batch.sizes]
    lengths = [len(tiles) for tiles in batch.tiles]

    def packed(features: Tensor) -> Tensor:
        """[T, P * P, D] -> [K, D], with newlines of zeros, which the teacher does not know."""
        return pack_media(features.split(lengths), plans, features.new_zeros(features.shape[-1]))

    seen = patch_features(teacher, torch.cat(batch.tiles).to(device))
    known = packed(torch.ones_like(seen[..., :1]))[:, 0] > 0.5  # (K,)
    return distillation_loss(student[known], packed(seen)[known])


# -- noise


def add_noise(
    scheduler: CogVideoXDDIMScheduler, batch: NoiseBatch, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, the velocity to predict (both [B, F, 16, h, w]) and the timesteps [B]."""
    mixed = scheduler.add_noise(batch.latents, batch.noise, batch.timestep)
    target = scheduler.get_velocity(batch.latents, batch.noise, batch.timestep)
    return mixed.to(device), target.to(device), batch.timestep.to(device)


def predict_velocity(
    model: HaploOmniForConditionalGeneration, batch: NoiseBatch, mixed: Tensor, timestep: Tensor
) -> Tensor:
    """What the whole model predicts for noisy latents [B, F, 16, h, w] at timesteps [B], of their shape."""
    device = mixed.device
    ids = batch.ids.to(device)
    real = batch.attention_mask.to(device)
    return model.predict_noise(mixed, timestep, ids, real, attention=attention_on(device))


def diffusion_loss(
    model: HaploOmniForConditionalGeneration,
    scheduler: CogVideoXDDIMScheduler,
    batch: NoiseBatch,
    device: torch.device,
) -> Tensor:
    """Mean squared error of the predicted velocity, summed over rows: a scalar."""
    mixed, target, timestep = add_noise(scheduler, batch, device)
    return per_sample_mse(predict_velocity(model, batch, mixed, timestep), target).sum()


def distilled_diffusion_losses(
    model: HaploOmniForConditionalGeneration,
    teacher: CogVideoXTransformer3DModel,
    language: Qwen2ForCausalLM,
    scheduler: CogVideoXDDIMScheduler,
    batch: NoiseBatch,
    device: torch.device,
) -> dict[str, Tensor]:
    """The velocity, while the whole model stays near the video prior at the same noise.

    Scalars by the loss's name, each summed over rows.
    """
    mixed, target, timestep = add_noise(scheduler, batch, device)
    with torch.no_grad():
        states = encode_prompts(language, batch, device)
        wanted = teacher_velocity(teacher, mixed, states, batch.attention_mask, timestep)
    predicted = predict_velocity(model, batch, mixed, timestep)
    return {
        Loss.DIFFUSION.value: per_sample_mse(predicted, target).sum(),
        Loss.DISTILLATION.value: per_sample_mse(predicted, wanted).sum(),
    }


def post_warmup_losses(
    model: HaploOmniForConditionalGeneration,
    teacher: CogVideoXTransformer3DModel,
    language: Qwen2ForCausalLM,
    scheduler: CogVideoXDDIMScheduler,
    batch: NoiseBatch,
    device: torch.device,
) -> dict[str, Tensor]:
    """Stage 1, post-decoder (paper A.3): denoise, follow the video prior, let words pass unchanged.

    Scalars by the loss's name: the first two summed over rows, the last over words.
    """
    mixed, target, timestep = add_noise(scheduler, batch, device)
    real = batch.attention_mask.to(device)
    # the language prior stands in for the pre and the base part, so that prompts come through the connector
    states = encode_prompts(language, batch, device)
    with torch.no_grad():
        text = model.model.enter_post(states.to(model.dtype))  # (B, T, post width)
        wanted = teacher_velocity(teacher, mixed, states, real, timestep)
    # the post part alone, over [text | timestep | noise]
    time = model.embed_time(timestep)
    tail = torch.cat(model.embed_latents(mixed, time), dim=1)  # (B, 1 + N, post width)
    hidden = model.model.forward_post(*generation_input(text, tail, real, attention_on(device)))
    predicted = model.read_noise(hidden, time, mixed.shape)
    words = real.bool()
    return {
        Loss.DIFFUSION.value: per_sample_mse(predicted, target).sum(),
        Loss.DISTILLATION.value: per_sample_mse(predicted, wanted).sum(),
        Loss.IDENTITY.value: identity_loss(hidden[:, : words.shape[1]][words], text[words]),
    }
