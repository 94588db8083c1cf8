"""The losses of the three stages (paper section 3.3), each as a sum over its items."""

from __future__ import annotations

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel, Qwen2ForCausalLM

from core.layers import FullAttention
from core.model import masks
from core.model.anyres import pack_tiles
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.batches import IGNORE, NoiseBatch, TalkBatch


def identity_loss(output: Tensor, given: Tensor) -> Tensor:
    """How far tokens [K, D] left what they were, as a fraction of their variance; summed over tokens."""
    error = (output.float() - given.float()).square().mean(-1)
    return (error / given.float().var(-1).clamp(min=1e-6)).sum()


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The same between a student's and a teacher's features [K, D]; summed over tokens."""
    return identity_loss(student, teacher.detach())


def text_embeds(model: HaploOmniForConditionalGeneration, batch: TalkBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Embeddings [B, S, pre width] of a batch of talks with the media in place, and where they are [B, S]."""
    core = model.model
    ids = batch.ids.to(device)
    embeds = core.embed_tokens(ids)
    where = (ids == model.config.image_token_index) | (ids == model.config.video_token_index)
    if not batch.tiles:
        return _residual(embeds, device), where
    features = core.patch_embed(torch.cat(batch.tiles).to(device)) + core.pre_pos_embed
    packed = _pack(model, batch, features, core.image_newline)
    if int(where.sum()) != len(packed):
        raise ValueError(f"{int(where.sum())} placeholders but {len(packed)} media tokens")
    embeds = embeds.masked_scatter(where[..., None], packed.to(embeds.dtype))
    return _residual(embeds, device), where


def _pack(model: HaploOmniForConditionalGeneration, batch: TalkBatch, features: Tensor, newline: Tensor) -> Tensor:
    """Features of all tiles [T, P * P, D] -> tokens of all media in reading order [K, D]."""
    packed, done = [], 0
    for tiles, size in zip(batch.tiles, batch.sizes, strict=True):
        own = features[done : done + len(tiles)]
        done += len(tiles)
        if size is None:
            packed += [own.flatten(0, 1), newline[None].to(own.dtype)]
        else:
            packed.append(pack_tiles(own, model.image_plan(size), newline))
    return torch.cat([p.to(features.dtype) for p in packed])


def _context(mask: Tensor, device: torch.device) -> FullAttention:
    return FullAttention(mask.to(device), eager=device.type == "cpu")


def answer_logits(
    model: HaploOmniForConditionalGeneration, batch: TalkBatch, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [K, V] of the answers' tokens, their labels [K], and where they are predicted [B, S - 1]."""
    embeds, _ = text_embeds(model, batch, device)
    hidden = model.model(embeds, batch.position_ids.to(device), _context(batch.mask, device))
    return _read_answers(model, batch, hidden)


def _read_answers(model: HaploOmniForConditionalGeneration, batch: TalkBatch, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    labels = batch.labels.to(hidden.device)[:, 1:]
    counted = labels != IGNORE
    return model.lm_head(model.model.answer_states(hidden[:, :-1][counted])).float(), labels[counted], counted


def next_token_loss(model: HaploOmniForConditionalGeneration, batch: TalkBatch, device: torch.device) -> Tensor:
    """Cross-entropy of the answers' tokens, summed."""
    logits, labels, _ = answer_logits(model, batch, device)
    return F.cross_entropy(logits, labels, reduction="sum")


def guided_talk_losses(
    model: HaploOmniForConditionalGeneration, teacher: CLIPVisionModel, batch: TalkBatch, device: torch.device
) -> dict[str, Tensor]:
    """The next token, while image tokens stay what the vision prior makes of them."""
    embeds, where = text_embeds(model, batch, device)
    places = batch.position_ids.to(device), _context(batch.mask, device)
    encoded = model.model.encode(embeds, *places)
    logits, labels, _ = _read_answers(model, batch, model.model.finish(encoded, *places))
    return {
        "next token": F.cross_entropy(logits, labels, reduction="sum"),
        "distillation": _sight_distillation(model, teacher, batch, encoded[where]),
    }


@torch.no_grad()
def answers_right(model: HaploOmniForConditionalGeneration, batch: TalkBatch, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy of the answers' tokens, and the share of answers of which every token would be chosen."""
    logits, labels, counted = answer_logits(model, batch, device)
    begins = counted & ~F.pad(counted, (1, 0))[:, :-1]
    answers = begins.flatten().cumsum(0)[counted.flatten()]  # the answer every token belongs to
    failed = torch.unique(answers[logits.argmax(-1) != labels])
    return float(F.cross_entropy(logits, labels)), 1.0 - len(failed) / max(1, int(begins.sum()))


def noisy(scheduler: CogVideoXDDIMScheduler, batch: NoiseBatch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, the velocity to predict (both [B, F, 16, h, w]) and the timesteps [B]."""
    at = batch.timestep
    mixed = scheduler.add_noise(batch.latents, batch.noise, at)
    target = scheduler.get_velocity(batch.latents, batch.noise, at)
    return mixed.to(device), target.to(device), at.to(device)


def row_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of every row [B]."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


def _velocity(model: HaploOmniForConditionalGeneration, batch: NoiseBatch, mixed: Tensor, timestep: Tensor) -> Tensor:
    """What the whole model predicts for noisy latents [B, F, 16, h, w], of the same shape."""
    device, (frames, height, width) = mixed.device, (mixed.shape[1], mixed.shape[3], mixed.shape[4])
    time = model.embed_time(timestep)
    tail = model.embed_noise(mixed, time)
    text = model.model.embed_tokens(batch.ids.to(device))
    embeds = torch.cat([text.to(tail.dtype), tail], dim=1)
    position_ids, context, noise_length = _generation_context(batch, tail.shape[1] - 1, device)
    hidden = model.model(_residual(embeds, device), position_ids, context)
    return model.read_noise(hidden[:, -noise_length:], time, frames, height, width)


def diffusion_loss(
    model: HaploOmniForConditionalGeneration, scheduler: CogVideoXDDIMScheduler, batch: NoiseBatch, device: torch.device
) -> Tensor:
    """Mean squared error of the predicted velocity, summed over rows."""
    mixed, target, timestep = noisy(scheduler, batch, device)
    return row_errors(_velocity(model, batch, mixed, timestep), target).sum()


def guided_noise_losses(
    model: HaploOmniForConditionalGeneration,
    teacher: CogVideoXTransformer3DModel,
    language: Qwen2ForCausalLM,
    scheduler: CogVideoXDDIMScheduler,
    batch: NoiseBatch,
    device: torch.device,
) -> dict[str, Tensor]:
    """The velocity, while the whole model stays near what the video prior says of the same noise."""
    mixed, target, timestep = noisy(scheduler, batch, device)
    with torch.no_grad():
        wanted = teacher_velocity(teacher, mixed, language_states(language, batch, device), timestep)
    predicted = _velocity(model, batch, mixed, timestep)
    return {"diffusion": row_errors(predicted, target).sum(), "distillation": row_errors(predicted, wanted).sum()}


def _generation_context(batch: NoiseBatch, noise_length: int, device: torch.device) -> tuple[Tensor, FullAttention, int]:
    """Positions and visibility of [text | timestep | noise]."""
    real = F.pad(batch.attention_mask, (0, noise_length + 1), value=1).to(device)
    starts = masks.generation_starts(batch.ids.shape[1], noise_length, len(batch.ids), device)
    return masks.positions(real), _context(masks.visible(starts, real), device), noise_length


def pre_warmup_losses(
    model: HaploOmniForConditionalGeneration, teacher: CLIPVisionModel, batch: TalkBatch, device: torch.device
) -> dict[str, Tensor]:
    """Stage 1, pre-decoder: words pass its blocks unchanged, image tokens become what the vision prior makes of them."""
    core = model.model
    embeds, where = text_embeds(model, batch, device)
    given = core.pre_norm(embeds)
    hidden = core.encode(embeds, batch.position_ids.to(device), _context(batch.mask, device))
    words = ~where & (batch.ids.to(device) != model.config.pad_token_id)
    return {
        "identity": identity_loss(hidden[words], given[words]),
        "distillation": _sight_distillation(model, teacher, batch, hidden[where]),
    }


def _sight_distillation(
    model: HaploOmniForConditionalGeneration, teacher: CLIPVisionModel, batch: TalkBatch, hidden: Tensor
) -> Tensor:
    """How far the media's tokens [K, D] are from the vision prior's features, summed over tokens."""
    if not batch.tiles:
        return hidden.float().sum()  # of nothing
    device = hidden.device
    with torch.no_grad():
        seen = teacher(torch.cat(batch.tiles).to(device)).last_hidden_state[:, 1:].float()
        # a row of patches ends with a newline, which the teacher does not know
        known = _pack(model, batch, torch.ones_like(seen[..., :1]), torch.zeros(1, device=device))[:, 0] > 0.5
        wanted = _pack(model, batch, seen, torch.zeros(seen.shape[-1], device=device))
    return distillation_loss(hidden[known], wanted[known])


def pre_warmup_counts(model: HaploOmniForConditionalGeneration, batch: TalkBatch) -> dict[str, int]:
    """Items of :func:`pre_warmup_losses`: words, and image tokens with a teacher."""
    media = (batch.ids == model.config.image_token_index) | (batch.ids == model.config.video_token_index)
    newlines = sum(1 if size is None else model.image_plan(size).height for size in batch.sizes)
    return {
        "identity": int((~media & (batch.ids != model.config.pad_token_id)).sum()),
        "distillation": int(media.sum()) - newlines,
    }


@torch.no_grad()
def language_states(language: Qwen2ForCausalLM, batch: NoiseBatch, device: torch.device) -> Tensor:
    """The language prior's last states of the prompts [B, T, D], 0 on padding."""
    states = language.model(batch.ids.to(device), use_cache=False).last_hidden_state
    return states * batch.attention_mask.to(device)[..., None]


def teacher_velocity(teacher: CogVideoXTransformer3DModel, mixed: Tensor, states: Tensor, timestep: Tensor) -> Tensor:
    """The video prior's prediction [B, F, 16, h, w]; ``states`` [B, T, D] are padded to the length it knows."""
    length = teacher.config.max_text_seq_length
    states = F.pad(states, (0, 0, 0, max(0, length - states.shape[1])))[:, :length]
    return teacher(mixed, states.to(mixed.dtype), timestep, return_dict=False)[0]


def post_warmup_losses(
    model: HaploOmniForConditionalGeneration,
    teacher: CogVideoXTransformer3DModel,
    language: Qwen2ForCausalLM,
    scheduler: CogVideoXDDIMScheduler,
    batch: NoiseBatch,
    device: torch.device,
) -> dict[str, Tensor]:
    """Stage 1, post-decoder: denoise, follow the video prior, let words pass unchanged."""
    core = model.model
    mixed, target, timestep = noisy(scheduler, batch, device)
    frames, height, width = mixed.shape[1], mixed.shape[3], mixed.shape[4]
    states = language_states(language, batch, device)
    time = model.embed_time(timestep)
    with torch.no_grad():
        text = core.post_connector(states.to(core.post_connector.affine.weight.dtype))
        wanted = teacher_velocity(teacher, mixed, states, timestep)
    noise = model.patch_embed_cogvideo(mixed)
    token = model.temb_token(F.silu(time))[:, None].to(noise.dtype)
    position_ids, context, noise_length = _generation_context(batch, noise.shape[1], device)
    given = torch.cat([text.to(noise.dtype), token, noise], dim=1)
    hidden = core.decode(_residual(given, device), position_ids, context)
    predicted = model.read_noise(hidden[:, -noise_length:], time, frames, height, width)
    words = batch.attention_mask.bool().to(device)
    length = words.shape[1]
    return {
        "diffusion": row_errors(predicted, target).sum(),
        "distillation": row_errors(predicted, wanted).sum(),
        "identity": identity_loss(hidden[:, :length][words], text[words]),
    }


def _residual(embeds: Tensor, device: torch.device) -> Tensor:
    """The residual stream in the precision of the running autocast region."""
    if torch.is_autocast_enabled(device.type):
        return embeds.to(torch.get_autocast_dtype(device.type))
    return embeds
