"""The small video autoencoder of the bundled model: an AutoencoderKLCogVideoX trained on procedural clips."""

from __future__ import annotations

import json
import random
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from core.pipelines.preview import fit_latent_rgb
from core.training.run import Run, warmup_cosine
from core.training.scenes import Scene, render, sample_scene

FRAMES = 9
KL_WEIGHT = 3e-5
FOREGROUND_WEIGHT = 3.0
RIM = 9  # pixels: holes and notches this wide count as much as the objects
LATENT_ERROR = 0.3  # of the latents' deviation, at most: the decoder must bear what denoising gets wrong
ENCODER_SHARE = 0.735  # of the steps; then the encoder rests and the decoder alone learns to draw sharper


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


def random_scene(rng: random.Random) -> Scene:
    """Mostly one object in any motion; sometimes several still ones."""
    return sample_scene(rng, count=1 if rng.random() < 0.85 else rng.randint(2, 4))


def training_clips(rng: random.Random, count: int, size: int, crop: int) -> tuple[Tensor, Tensor]:
    """Clips [B, 3, T, crop, crop] in [-1, 1] and a pixel weight [B, 1, T, crop, crop] that favours the objects
    and their surroundings: weighting the objects alone fills the holes of rings and the notches of stars.

    Scenes are drawn at ``size`` and cropped around a point of an object's path, where the hard pixels are.
    """
    clips, weights = [], []
    for _ in range(count):
        scene = random_scene(rng)
        frames = render(scene, size, size, FRAMES)
        item = rng.choice(scene.objects)
        x, y, radius = item.state(rng.random())
        left = int(np.clip((x + rng.uniform(-1, 1) * radius) * size - crop / 2, 0, size - crop))
        top = int(np.clip((y + rng.uniform(-1, 1) * radius) * size - crop / 2, 0, size - crop))
        frames = frames[:, top : top + crop, left : left + crop]
        far = np.abs(frames.astype(np.int16) - np.asarray(scene.background_rgb, np.int16)).max(-1) > 10
        clips.append(frames)
        near = [cv2.dilate(mask, np.ones((RIM, RIM), np.uint8)) for mask in far.astype(np.uint8)]
        weights.append(1.0 + FOREGROUND_WEIGHT * np.stack(near).astype(np.float32))
    video = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    return video, torch.from_numpy(np.stack(weights))[:, None]


def autoencoder_loss(
    vae: AutoencoderKLCogVideoX, video: Tensor, weight: Tensor, noise: Tensor, latent_error: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted L1 + L2 of the reconstruction plus a light KL term; returns (loss, mean squared error).

    Args:
        video: [B, 3, T, H, W] in [-1, 1]; ``weight`` of its pixels [B, 1, T, H, W].
        noise: [B, 16, F, h, w], draws the latents from the posterior.
        latent_error: added to the latents in units of their deviation, like ``noise``.
    """
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(video).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + noise * (0.5 * logvar).exp()
        if latent_error is not None:
            latents = latents + latent_error * mean.detach().std()
        decoded = vae.decode(latents).sample.float()
    error = decoded - video
    reconstruction = (weight * (error.abs() + 2.0 * error.square())).mean() / weight.mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return reconstruction + KL_WEIGHT * kl, error.detach().square().mean()


def train_autoencoder(folder: Path, steps: int, seed: int = 0, lr: float = 2.5e-3, batch: int = 6) -> AutoencoderKLCogVideoX:
    """Train from scratch or go on where the folder's state left off.

    First all of it, then the decoder alone; each phase decays its learning rate and ends on whole frames.
    """
    torch.manual_seed(seed)
    vae = build_autoencoder()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=1e-4)
    run = Run(folder, {"vae": vae, "optimizer": optimizer})
    resting_from = int(steps * ENCODER_SHARE)
    for step, bar in run.steps(steps, "autoencoder"):
        resting = step >= resting_from
        vae.encoder.requires_grad_(not resting)
        rng = random.Random(f"{seed}/{step}")
        done, length = (step - resting_from, steps - resting_from) if resting else (step, resting_from)
        whole = done >= int(length * 0.8)
        size = 96 if whole else rng.choice((64, 96, 96, 128))
        video, weight = training_clips(rng, 2 if whole else batch, size, 96 if whole else 48)
        generator = torch.Generator().manual_seed(step)
        noise = torch.randn(len(video), 16, 3, video.shape[-2] // 8, video.shape[-1] // 8, generator=generator)
        wrong = None
        if resting:
            amounts = LATENT_ERROR * torch.rand(len(video), 1, 1, 1, 1, generator=generator)
            wrong = amounts * torch.randn(noise.shape, generator=generator)
        loss, mse = autoencoder_loss(vae, video, weight, noise, wrong)
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_cosine(done, length, 50) * (0.6 if resting else 1.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0:
            psnr = float(-10 * torch.log10(mse / 4.0))
            run.report(loss=loss.item(), psnr_db=psnr)
            bar.set_postfix(loss=f"{loss.item():.4f}", psnr=f"{psnr:.1f} dB")
    return vae


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLCogVideoX, clips: int = 64, size: int = 96, seed: int = 7) -> dict[str, object]:
    """Latent standard deviation and the latent-to-RGB factors of this autoencoder, on random scenes.

    Returns:
        ``std`` (float), ``factors`` (16 lists of 3), ``bias`` (3), ``r2`` (share of the variance explained).
    """
    rng = random.Random(seed)
    pairs = []
    for _ in range(clips):
        clip = torch.from_numpy(render(random_scene(rng), size, size, FRAMES)).permute(3, 0, 1, 2).float() / 255.0
        pairs.append((vae.encode(clip[None] * 2.0 - 1.0).latent_dist.mode()[0], clip))
    latent_rgb, r2 = fit_latent_rgb(pairs)
    return {
        "std": float(torch.stack([z for z, _ in pairs]).std()),
        "factors": [[round(float(v), 6) for v in row] for row in latent_rgb.factors],
        "bias": [round(float(v), 6) for v in latent_rgb.bias],
        "r2": round(r2, 4),
    }


def export_autoencoder(vae: AutoencoderKLCogVideoX, checkpoint: Path) -> None:
    """Write ``vae/`` (bfloat16, with its scaling factor) and ``preview.json`` into a checkpoint folder."""
    statistics = latent_statistics(vae)
    vae.register_to_config(scaling_factor=round(1.0 / float(statistics["std"]), 5))  # type: ignore[arg-type]
    vae.to(torch.bfloat16).save_pretrained(checkpoint / "vae")
    preview = {key: statistics[key] for key in ("factors", "bias", "r2")}
    (checkpoint / "preview.json").write_text(json.dumps(preview, indent=1) + "\n")
