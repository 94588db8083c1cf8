"""The autoencoder's decoder as a stream of small steps, so that others have their turns and a stop is heard.

It is the work of ``AutoencoderKLCogVideoX.decode`` in the same order, bit for bit.
Frames come in small groups, which hand the convolutions' last frames on to the next group.
Where tiling is on, one tile comes after another, and their seams are blended.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from core.devices import working_device


@dataclass(frozen=True)
class DecodeStep:
    """``index`` of ``total`` pieces of a clip are decoded; a piece is a few frames of a tile."""

    index: int
    total: int


def decode_in_steps(vae: AutoencoderKLCogVideoX, latents: Tensor) -> Generator[DecodeStep, None, Tensor]:
    """Decode latents piece by piece, with a step between two pieces; returns the whole.

    Args:
        latents: [1, C, F, h, w], unscaled, on any device.

    Returns:
        Frames [1, 3, T, H, W], as ``vae.decode(latents).sample``.
    """
    rows, columns = _tile_corners(vae, *latents.shape[-2:])
    groups = _frame_groups(latents.shape[2], vae.num_latent_frames_batch_size)
    total = len(rows) * len(columns) * len(groups)
    height, width = _tile_sides(vae, *latents.shape[-2:])
    done = 0
    tiles: list[list[Tensor]] = []
    for top in rows:
        tiles.append([])
        for left in columns:
            tile = latents[..., top : top + height, left : left + width]
            cache = None
            frames = []
            for group in groups:
                if done:
                    yield DecodeStep(done, total)
                piece, cache = _decode_group(vae, tile[:, :, group], cache)
                frames.append(piece)
                done += 1
            tiles[-1].append(torch.cat(frames, dim=2))
    if len(rows) == len(columns) == 1:
        return tiles[0][0]
    return _joined(vae, tiles)


def _frame_groups(frames: int, size: int) -> list[slice]:
    """Latent frames in groups of ``size``; what is left over goes into the first."""
    first = min(frames, size + frames % size)
    return [slice(0, first), *(slice(start, start + size) for start in range(first, frames, size))]


def _is_tiled(vae: AutoencoderKLCogVideoX, height: int, width: int) -> bool:
    """Whether latents of this size are decoded in tiles."""
    return vae.use_tiling and (height > vae.tile_latent_min_height or width > vae.tile_latent_min_width)


def _tile_sides(vae: AutoencoderKLCogVideoX, height: int, width: int) -> tuple[int, int]:
    """Height and width of a tile, in latent pixels."""
    if not _is_tiled(vae, height, width):
        return height, width
    return vae.tile_latent_min_height, vae.tile_latent_min_width


def _tile_corners(vae: AutoencoderKLCogVideoX, height: int, width: int) -> tuple[list[int], list[int]]:
    """Tops and lefts of all tiles, in latent pixels; they overlap by the autoencoder's factors."""
    if not _is_tiled(vae, height, width):
        return [0], [0]
    down = int(vae.tile_latent_min_height * (1 - vae.tile_overlap_factor_height))
    across = int(vae.tile_latent_min_width * (1 - vae.tile_overlap_factor_width))
    return list(range(0, height, down)), list(range(0, width, across))


@torch.no_grad()
def _decode_group(
    vae: AutoencoderKLCogVideoX, latents: Tensor, cache: dict | None
) -> tuple[Tensor, dict | None]:
    """One group of frames of one tile, and what the next group needs of it."""
    _bring(vae)  # before every group: meanwhile another job may have sent the autoencoder away
    latents = latents.to(working_device(vae), vae.dtype)
    if vae.post_quant_conv is not None:
        latents = vae.post_quant_conv(latents)
    return vae.decoder(latents, conv_cache=cache)


@apply_forward_hook
def _bring(vae: AutoencoderKLCogVideoX) -> None:
    """Let an offload hook bring the autoencoder to its device, as a call of ``decode`` does."""


@torch.no_grad()
def _joined(vae: AutoencoderKLCogVideoX, tiles: list[list[Tensor]]) -> Tensor:
    """All tiles [1, 3, T, H, W] as one picture, their seams blended downwards and across."""
    down = int(vae.tile_sample_min_height * vae.tile_overlap_factor_height)
    across = int(vae.tile_sample_min_width * vae.tile_overlap_factor_width)
    height = vae.tile_sample_min_height - down
    width = vae.tile_sample_min_width - across
    rows = []
    for number, row in enumerate(tiles):
        for place, tile in enumerate(row):
            if number:
                tile = vae.blend_v(tiles[number - 1][place], tile, down)
            if place:
                tile = vae.blend_h(row[place - 1], tile, across)
            row[place] = tile
        rows.append(torch.cat([tile[..., :height, :width] for tile in row], dim=4))
    return torch.cat(rows, dim=3)
