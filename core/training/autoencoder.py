"""The small video autoencoder of the bundled model: an AutoencoderKLCogVideoX trained on procedural clips."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXSpatialNorm3D
from torch import Tensor

from core.pipelines.preview import fit_latent_rgb
from core.training.drawing import paint_background
from core.training.scenes import Scene, aspect_of, render, sample_scene
from core.training.trainer import SavedTask, Share

FRAMES = 9
PREVIEW_FILE = "preview.json"
KL_WEIGHT = 3e-5
FOREGROUND_WEIGHT = 3.0
RIM = 9  # pixels: holes and notches this wide count as much as the objects
BALANCE = 0.5  # 1 would make all directions of the latents equally loud, 0 leaves them
LATENT_ERROR = 0.3  # of the latents' deviation, at most: the decoder must bear what denoising gets wrong
SIZES = ((96, 96), (128, 128), (128, 128), (128, 192), (192, 128), (160, 160))


def build_autoencoder() -> AutoencoderKLCogVideoX:
    """16 latent channels, 8x in space, 4x in time, like the released one, with 2.6M parameters."""
    return AutoencoderKLCogVideoX(
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=16,
        sample_height=96,
        sample_width=160,
        scaling_factor=1.0,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
    )


def random_scene(rng: random.Random, height: int = 128, width: int = 128) -> Scene:
    """Mostly one object or two, in any motion; sometimes more."""
    return sample_scene(rng, count=rng.choice((1, 1, 1, 1, 2, 2, 3, 4)), aspect=aspect_of(height, width))


def training_clip(rng: random.Random, size: tuple[int, int], crop: int) -> tuple[Tensor, Tensor]:
    """A clip [3, T, crop, crop] in [-1, 1] and a pixel weight [1, T, crop, crop] that favours the objects
    and their surroundings: weighting the objects alone fills the holes of rings and the notches of stars.

    The scene is drawn at ``size`` (height, width) and cropped around a point of an object's path, where the hard pixels are.
    """
    height, width = size
    scene = random_scene(rng, height, width)
    frames = render(scene, height, width, FRAMES)
    item = rng.choice(scene.objects)
    x, y, radius = item.state(rng.random())
    left = int(np.clip((x + rng.uniform(-1, 1) * radius) * width - crop / 2, 0, width - crop))
    top = int(np.clip((y + rng.uniform(-1, 1) * radius) * height - crop / 2, 0, height - crop))
    ground = paint_background(scene.background_rgb, scene.texture, height, width).astype(np.int16)
    far = np.abs(frames.astype(np.int16) - ground).max(-1) > 10
    far, frames = (whole[:, top : top + crop, left : left + crop] for whole in (far, frames))
    near = np.stack([cv2.dilate(mask, np.ones((RIM, RIM), np.uint8)) for mask in far.astype(np.uint8)])
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float() / 127.5 - 1.0
    return video, torch.from_numpy(1.0 + FOREGROUND_WEIGHT * near.astype(np.float32))[None]


@dataclass
class CropBatch:
    """``video`` [B, 3, T, H, W] in [-1, 1]; ``weight`` of its pixels [B, 1, T, H, W]; ``noise`` [B, 16, F, h, w] draws the
    latents from the posterior; ``error`` of the same shape, or None, is added to them in units of their deviation."""

    video: Tensor
    weight: Tensor
    noise: Tensor
    error: Tensor | None = None


def autoencoder_losses(vae: AutoencoderKLCogVideoX, batch: CropBatch) -> dict[str, Tensor]:
    """Weighted L1 + L2 of the reconstruction, KL term and squared error, each a mean over pixels summed over rows."""
    video, weight = batch.video.to(vae.device), batch.weight.to(vae.device)
    posterior = vae.encode(video).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    latents = mean + batch.noise.to(vae.device) * (0.5 * logvar).exp()
    if batch.error is not None:
        latents = latents + batch.error.to(vae.device) * mean.detach().std()
    error = vae.decode(latents).sample.float() - video
    reconstruction = (weight * (error.abs() + 2.0 * error.square())).flatten(1).mean(1) / weight.flatten(1).mean(1)
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).mean(1)
    squared = error.detach().square().flatten(1).mean(1)
    return {"reconstruction": reconstruction.sum(), "kl": kl.sum(), "squared error": squared.sum()}


class AutoencoderTask(SavedTask):
    """Trains the autoencoder, or its decoder alone, which then also learns to bear errors in the latents.

    Args:
        vae: learns.
        steps: of the run; the last fifth uses large crops.
        rows: small crops a step; of the large ones a third as many.
        decoder_only: the encoder rests, so that encoded clips stay valid.
        seed: of the data.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX, steps: int, rows: int = 6, decoder_only: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.weights = {"reconstruction": 1.0, "kl": KL_WEIGHT}
        self.vae, self.steps, self.rows, self.decoder_only, self.seed = vae, steps, rows, decoder_only, seed
        vae.encoder.requires_grad_(not decoder_only)

    def draw(self, share: Share) -> dict[str, Any]:
        large = share.step >= int(self.steps * 0.8)
        rng = random.Random(f"{self.seed}/autoencoder/{self.decoder_only}/{share.step}")
        size, crop = rng.choice(SIZES), 96 if large else 48
        rows, made = max(share.parts, self.rows // 3 if large else self.rows), []
        for row in share.rows(rows):
            own = random.Random(f"{self.seed}/autoencoder/{self.decoder_only}/{share.step}/{row}")
            video, weight = training_clip(own, size, crop)
            generator = torch.Generator().manual_seed(own.getrandbits(60))
            noise = torch.randn(16, (FRAMES - 1) // 4 + 1, crop // 8, crop // 8, generator=generator)
            made.append((video, weight, noise, LATENT_ERROR * own.random() * torch.randn(noise.shape, generator=generator)))
        video, weight, noise, error = (torch.stack(values) for values in zip(*made, strict=True))
        return {"clips": CropBatch(video, weight, noise, error if self.decoder_only else None)}

    def counts(self, batches: dict[str, Any]) -> dict[str, int]:
        return dict.fromkeys((*self.weights, "squared error"), len(batches["clips"].video))

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        return autoencoder_losses(self.vae, batches["clips"])

    def save(self, folder: Path) -> None:
        """Write the autoencoder as diffusers does, with the scaling factor that gives latents unit variance, and its
        preview factors."""
        statistics = latent_statistics(self.vae)
        self.vae.register_to_config(scaling_factor=round(1.0 / float(statistics["std"]), 5))  # type: ignore[arg-type]
        self.vae.save_pretrained(folder)
        preview = {key: statistics[key] for key in ("factors", "bias", "r2")}
        (folder / PREVIEW_FILE).write_text(json.dumps(preview, indent=1) + "\n")


@torch.no_grad()
def latent_samples(vae: AutoencoderKLCogVideoX, clips: int = 12, size: int = 128, seed: int = 7) -> list[tuple[Tensor, Tensor]]:
    """Random scenes as (latents [16, F, h, w], clip [3, T, H, W] in [0, 1])."""
    rng, pairs = random.Random(seed), []
    for _ in range(clips):
        clip = torch.from_numpy(render(random_scene(rng), size, size, FRAMES)).permute(3, 0, 1, 2).float() / 255.0
        pairs.append((vae.encode(clip[None].to(vae.device) * 2.0 - 1.0).latent_dist.mode()[0].cpu(), clip))
    return pairs


def latent_statistics(vae: AutoencoderKLCogVideoX) -> dict[str, object]:
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
def balance_latents(vae: AutoencoderKLCogVideoX, mean: Tensor, covariance: Tensor) -> Tensor:
    """Turn the latents z into A (z - mean) and the decoder into one that reads those; returns A [16, 16].

    One scaling factor cannot undo what training leaves behind: channels far from zero, and directions that vary thirty
    times more than others. The diffusion then spends itself on offsets and background colours, and the directions that
    hold the objects' outlines drown in noise. A moves every principal direction's deviation half way (in the logarithm)
    to one. What the decoder draws stays the same, but for the outermost pixels: its first convolution pads with zeros,
    which now mean something else.
    """
    variances, directions = torch.linalg.eigh(covariance.double())
    scales = variances.clamp(min=1e-6) ** (-BALANCE / 2)
    forward = (directions * scales) @ directions.T
    backward = (directions / scales) @ directions.T
    offset = mean.double()
    last = vae.encoder.conv_out.conv
    channels = len(mean)
    _compose(last.weight[:channels], forward, from_left=True)
    last.bias[:channels] = (forward @ (last.bias[:channels].double() - offset)).to(last.bias.dtype)
    last.bias[channels:] += 2 * forward.diagonal().log().to(last.bias.dtype)  # the posterior's deviations follow
    readers = [vae.decoder.conv_in.conv]
    for module in vae.decoder.modules():
        if isinstance(module, CogVideoXSpatialNorm3D):
            readers += [module.conv_y.conv, module.conv_b.conv]
    for reader in readers:
        reader.bias += torch.einsum("oi...,i->o", reader.weight.double(), offset).to(reader.bias.dtype)
        _compose(reader.weight, backward, from_left=False)
    return forward.float()


def _compose(weight: Tensor, matrix: Tensor, from_left: bool) -> None:
    """Follow (or precede) a convolution's weight [O, I, ...] by a matrix over its output (or input) channels, in place."""
    equation = "po,oi...->pi..." if from_left else "oi...,ij->oj..."
    operands = (matrix, weight.double()) if from_left else (weight.double(), matrix)
    weight.copy_(torch.einsum(equation, *operands).to(weight.dtype))
