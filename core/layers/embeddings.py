"""From pixels, latents and timesteps to tokens."""

from __future__ import annotations

from diffusers.models.embeddings import get_3d_sincos_pos_embed, get_timestep_embedding
from torch import Tensor, nn

from core.config import SPATIAL_INTERPOLATION_SCALE, TEMPORAL_INTERPOLATION_SCALE
from core.geometry import LATENT_CHANNELS, LATENT_PATCH


class PatchEmbed(nn.Module):
    """Image tiles or video frames to patch features: a convolution over one patch each, without bias."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """[T, 3, side, side] -> [T, P * P, D]."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class LatentPatchEmbed(nn.Module):
    """Latents to noise tokens: a 2x2 convolution a frame, plus CogVideoX's 3-D sine-cosine positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(LATENT_CHANNELS, width, kernel_size=LATENT_PATCH, stride=LATENT_PATCH)
        self.width = width

    def forward(self, latents: Tensor) -> Tensor:
        """[B, F, 16, h, w] -> [B, N, D] with N = F * (h / 2) * (w / 2)."""
        batch, frames, _, height, width = latents.shape
        tokens = self.proj(latents.flatten(0, 1)).flatten(2).transpose(1, 2)  # (B F, h w / 4, D)
        grid = (width // LATENT_PATCH, height // LATENT_PATCH)
        positions = get_3d_sincos_pos_embed(
            self.width,
            grid,
            frames,
            spatial_interpolation_scale=SPATIAL_INTERPOLATION_SCALE,
            temporal_interpolation_scale=TEMPORAL_INTERPOLATION_SCALE,
            device=latents.device,
            output_type="pt",
        )  # (F, h w / 4, D)
        return tokens.reshape(batch, -1, self.width) + positions.flatten(0, 1).to(tokens.dtype)


def unpatchify(tokens: Tensor, frames: int, height: int, width: int) -> Tensor:
    """[B, N, 16 * 2 * 2] -> [B, F, 16, h, w]; inside a token the channel is the slowest index.

    Args:
        frames: F.
        height, width: h and w, of the latents.
    """
    batch = tokens.shape[0]
    grid = tokens.reshape(
        batch, frames, height // LATENT_PATCH, width // LATENT_PATCH, -1, LATENT_PATCH, LATENT_PATCH
    )  # (B, F, h / 2, w / 2, 16, 2, 2)
    return grid.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, frames, -1, height, width)


def timestep_sinusoid(timestep: Tensor, width: int) -> Tensor:
    """Sinusoid of the timesteps [B] in float32: [B, width], cosine first."""
    return get_timestep_embedding(timestep, width, flip_sin_to_cos=True, downscale_freq_shift=0)
