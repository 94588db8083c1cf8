"""How an autoencoder's latents are distributed, and how to even that out."""

from __future__ import annotations

import random
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXSpatialNorm3D
from torch import Tensor

from core.pipelines.preview import fit_latent_rgb
from core.scenes.scene import render
from core.training.priors.training_clips import FRAMES, random_scene

BALANCE = 0.5  # 1 would make all directions of the latents equally loud, 0 leaves them


@torch.no_grad()
def latent_samples(vae: AutoencoderKLCogVideoX, clips: int = 12) -> list[tuple[Tensor, Tensor]]:
    """Random scenes, always the same, as (latents [16, F, h, w], clip [3, T, 128, 128] in [0, 1])."""
    rng = random.Random(7)
    pairs = []
    for _ in range(clips):
        frames = torch.from_numpy(render(random_scene(rng), 128, 128, FRAMES))  # (T, H, W, 3)
        clip = frames.permute(3, 0, 1, 2).float() / 255.0
        latents = vae.encode(clip[None].to(vae.device) * 2.0 - 1.0).latent_dist.mode()[0].cpu()
        pairs.append((latents, clip))
    return pairs


def latent_statistics(vae: AutoencoderKLCogVideoX) -> dict[str, Any]:
    """Latent standard deviation and the latent-to-RGB factors of this autoencoder, on random scenes.

    Returns:
        ``std`` (float), ``factors`` (16 lists of 3), ``bias`` (3), ``r2`` (share of the variance explained).
    """
    pairs = latent_samples(vae)
    latent_rgb, r2 = fit_latent_rgb(pairs)
    return {
        "std": float(torch.stack([z for z, _ in pairs]).std()),
        "factors": [[round(float(v), 6) for v in row] for row in latent_rgb.factors],
        "bias": [round(float(v), 6) for v in latent_rgb.bias],
        "r2": round(r2, 4),
    }


@torch.no_grad()
def latent_moments(vae: AutoencoderKLCogVideoX, clips: int = 48) -> tuple[Tensor, Tensor]:
    """Mean [16] and covariance [16, 16] of the latents' channels, on random scenes."""
    channels = torch.cat([z.flatten(1) for z, _ in latent_samples(vae, clips)], dim=1)
    return channels.mean(1), torch.cov(channels)


@torch.no_grad()
def whiten_latents(vae: AutoencoderKLCogVideoX, mean: Tensor, covariance: Tensor) -> Tensor:
    """Turn the latents z into A (z - mean) and the decoder into one that reads those, in place.

    One scaling factor cannot undo what training leaves behind.
    That is channels far from zero, and directions that vary thirty times more than others.
    The diffusion then spends itself on offsets and background colours.
    The directions that hold the objects' outlines drown in noise.
    A moves every principal direction's deviation half way (in the logarithm) to one.
    What the decoder draws stays the same, but for the outermost pixels.
    Its first convolution pads with zeros, which now mean something else.

    Args:
        mean, covariance: of the latents' channels, [16] and [16, 16]; see :func:`latent_moments`.

    Returns:
        A [16, 16].
    """
    variances, directions = torch.linalg.eigh(covariance.double())
    scales = variances.clamp(min=1e-6) ** (-BALANCE / 2)
    forward = (directions * scales) @ directions.T
    backward = (directions / scales) @ directions.T
    offset = mean.double()
    # the encoder's last convolution gives the posterior's means, then its log-variances
    last = vae.encoder.conv_out.conv
    channels = len(mean)
    _compose(last.weight[:channels], forward, from_left=True)
    last.bias[:channels] = (forward @ (last.bias[:channels].double() - offset)).to(last.bias.dtype)
    # the deviations follow
    last.bias[channels:] += 2 * forward.diagonal().log().to(last.bias.dtype)
    # every convolution that reads latents undoes A
    readers = [vae.decoder.conv_in.conv]
    for module in vae.decoder.modules():
        if isinstance(module, CogVideoXSpatialNorm3D):
            readers += [module.conv_y.conv, module.conv_b.conv]
    for reader in readers:
        reader.bias += torch.einsum("oi...,i->o", reader.weight.double(), offset).to(reader.bias.dtype)
        _compose(reader.weight, backward, from_left=False)
    return forward.float()


def _compose(weight: Tensor, matrix: Tensor, from_left: bool) -> None:
    """A convolution's weight [O, I, ...] with a matrix behind (``from_left``) or before it, in place."""
    equation = "po,oi...->pi..." if from_left else "oi...,ij->oj..."
    operands = (matrix, weight.double()) if from_left else (weight.double(), matrix)
    weight.copy_(torch.einsum(equation, *operands).to(weight.dtype))
