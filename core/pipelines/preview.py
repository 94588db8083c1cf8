"""Cheap looks at latents: a linear map from 16 channels to RGB, fitted to the autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from torch.nn import functional as F

from core.devices import working_device
from core.geometry import TEMPORAL_COMPRESSION
from core.opencv import cv2


@dataclass(frozen=True)
class LatentRGB:
    """rgb = latent @ factors + bias, with ``factors`` [16, 3] for latents as the autoencoder emits them."""

    factors: Tensor
    bias: Tensor

    def render(self, latents: Tensor, scaling_factor: float, height: int, width: int) -> np.ndarray:
        """Scaled latents [F, 16, h, w] -> uint8 RGB [T, height, width, 3], a latent frame repeated."""
        raw = latents.float().cpu() / scaling_factor
        rgb = torch.einsum("fchw,cr->fhwr", raw, self.factors) + self.bias  # (F, h, w, 3)
        pixels = (rgb.clamp(0, 1) * 255).to(torch.uint8).numpy()
        frames = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in pixels]
        # the first latent frame holds one frame, every other one four
        repeats = [1] + [TEMPORAL_COMPRESSION] * (len(frames) - 1)
        return np.stack([frame for frame, count in zip(frames, repeats, strict=True) for _ in range(count)])


def fit_latent_rgb(pairs: list[tuple[Tensor, Tensor]]) -> tuple[LatentRGB, float]:
    """Least-squares factors from pairs of latents [16, F, h, w] and clips [3, T, H, W] in [0, 1].

    Latent 0 is matched with frame 0, latent k with the mean of its four frames.

    Returns:
        The factors, and the share of the colours' variance that they explain (R squared).
    """
    latents = []
    colours = []
    for z, clip in pairs:
        # the clip as small as its latents
        small = F.adaptive_avg_pool2d(clip.transpose(0, 1), (z.shape[-2], z.shape[-1]))  # (T, 3, h, w)
        # one picture for each latent frame
        groups = [small[0]]
        for k in range(z.shape[1] - 1):
            first = 1 + TEMPORAL_COMPRESSION * k
            groups.append(small[first : first + TEMPORAL_COMPRESSION].mean(0))
        # pixels as rows: (F h w, 16) and (F h w, 3)
        latents.append(z.permute(1, 2, 3, 0).reshape(-1, z.shape[0]))
        colours.append(torch.stack(groups).permute(0, 2, 3, 1).reshape(-1, 3))
    # a column of ones for the bias
    design = torch.cat(latents).double()
    design = torch.cat([design, torch.ones_like(design[:, :1])], dim=1)
    target = torch.cat(colours).double()
    solution = torch.linalg.lstsq(design, target).solution
    r2 = 1 - ((design @ solution - target) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
    return LatentRGB(solution[:-1].float(), solution[-1].float()), float(r2)


@torch.no_grad()
def measure_latent_rgb(vae: AutoencoderKLCogVideoX, clips: int = 8) -> LatentRGB:
    """Fit the factors of an autoencoder that came without, on small pictures of random colour fields."""
    generator = torch.Generator().manual_seed(0)
    device = working_device(vae)
    pairs = []
    for _ in range(clips):
        coarse = torch.rand(1, 3, 1, 3, 3, generator=generator)
        clip = F.interpolate(coarse, size=(1, 64, 64), mode="trilinear").clamp(0, 1)
        z = vae.encode((clip * 2 - 1).to(device, vae.dtype)).latent_dist.mode()  # (1, 16, 1, 8, 8)
        pairs.append((z[0].float().cpu(), clip[0]))
    return fit_latent_rgb(pairs)[0]
