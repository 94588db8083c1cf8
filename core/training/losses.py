"""The two losses of joint training: next token and diffusion (v-prediction)."""

from __future__ import annotations

import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor
from torch.nn import functional as F

from core.layers import FullAttention
from core.model import masks
from core.model.anyres import pack_tiles
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.batches import IGNORE, NoiseBatch, TalkBatch


def next_token_loss(model: HaploOmniForConditionalGeneration, batch: TalkBatch, device: torch.device) -> Tensor:
    """Cross-entropy of the answers' tokens. Scalar."""
    core = model.model
    ids = batch.ids.to(device)
    embeds = core.embed_tokens(ids)
    features = core.patch_embed(torch.cat(batch.tiles).to(device)) + core.pre_pos_embed
    packed, done = [], 0
    for tiles, size in zip(batch.tiles, batch.sizes, strict=True):
        own = features[done : done + len(tiles)]
        done += len(tiles)
        if size is None:
            packed += [own.flatten(0, 1), core.image_newline[None].to(own.dtype)]
        else:
            packed.append(pack_tiles(own, model.image_plan(size), core.image_newline))
    where = (ids == model.config.image_token_index) | (ids == model.config.video_token_index)
    features = torch.cat([p.to(embeds.dtype) for p in packed])
    if int(where.sum()) != len(features):
        raise ValueError(f"{int(where.sum())} placeholders but {len(features)} media tokens")
    embeds = embeds.masked_scatter(where[..., None], features)
    context = FullAttention(batch.mask.to(device), eager=device.type == "cpu")
    hidden = core(_residual(embeds, device), batch.position_ids.to(device), context)
    labels = batch.labels.to(device)[:, 1:]
    counted = labels != IGNORE
    logits = model.lm_head(core.answer_states(hidden[:, :-1][counted]))
    return F.cross_entropy(logits.float(), labels[counted])


def diffusion_loss(
    model: HaploOmniForConditionalGeneration,
    scheduler: CogVideoXDDIMScheduler,
    batch: NoiseBatch,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Mean squared error of the predicted velocity at a random timestep a row. Scalar."""
    rows = len(batch.latents)
    # stratified: one timestep from each of `rows` equal bands
    bands = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
    timestep = (bands * scheduler.config.num_train_timesteps).long()
    noise = torch.randn(batch.latents.shape, generator=generator)
    noisy = scheduler.add_noise(batch.latents, noise, timestep)
    target = scheduler.get_velocity(batch.latents, noise, timestep).to(device)
    frames, height, width = noisy.shape[1], noisy.shape[3], noisy.shape[4]
    time = model.embed_time(timestep.to(device))
    tail = model.embed_noise(noisy.to(device), time)
    text = model.model.embed_tokens(batch.ids.to(device))
    embeds = torch.cat([text.to(tail.dtype), tail], dim=1)
    noise_length = tail.shape[1] - 1
    real = F.pad(batch.attention_mask, (0, noise_length + 1), value=1).to(device)
    starts = masks.generation_starts(batch.ids.shape[1], noise_length, rows, device)
    context = FullAttention(masks.visible(starts, real), eager=device.type == "cpu")
    hidden = model.model(_residual(embeds, device), masks.positions(real), context)
    predicted = model.read_noise(hidden[:, -noise_length:], time, frames, height, width)
    return F.mse_loss(predicted.float(), target)


def _residual(embeds: Tensor, device: torch.device) -> Tensor:
    """The residual stream in the precision of the running autocast region."""
    if torch.is_autocast_enabled(device.type):
        return embeds.to(torch.get_autocast_dtype(device.type))
    return embeds
