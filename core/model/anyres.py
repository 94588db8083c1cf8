"""How an image becomes a grid of patches: the only place that counts image and video tokens (spec section 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_utils import select_best_resolution

SHRINK_ABOVE = 1.1


@dataclass(frozen=True)
class GridPlan:
    """The way of one image from tiles to tokens; all numbers in patches.

    ``rows x columns`` is the full grid; ``top:bottom, left:right`` cuts the padding away; ``height x width`` is what is
    left after shrinking.
    """

    rows: int
    columns: int
    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int
    newline: bool

    @property
    def num_tokens(self) -> int:
        return self.height * (self.width + self.newline)


def plan_grid(
    image_size: tuple[int, int],
    pinpoints: list[list[int]],
    tile_size: int,
    patches_per_side: int,
    max_tiles: int | None,
    newline: bool = True,
) -> GridPlan:
    """Plan the token grid of an image of ``image_size`` (height, width) pixels."""
    height, width = image_size
    best_height, best_width = select_best_resolution((height, width), pinpoints)
    rows, columns = best_height // tile_size * patches_per_side, best_width // tile_size * patches_per_side
    top, bottom, left, right = 0, rows, 0, columns
    if width / height > columns / rows:
        kept = max(1, int(round(height * (columns / width), 7)))
        top = (rows - kept) // 2
        bottom = rows - top
    else:
        kept = max(1, int(round(width * (rows / height), 7)))
        left = (columns - kept) // 2
        right = columns - left
    out_height, out_width = bottom - top, right - left
    if max_tiles is not None:
        ratio = math.sqrt(out_height * out_width / (max_tiles * patches_per_side**2))
        if ratio > SHRINK_ABOVE:
            out_height, out_width = max(1, int(out_height // ratio)), max(1, int(out_width // ratio))
    return GridPlan(rows, columns, top, bottom, left, right, out_height, out_width, newline)


def num_tiles(image_size: tuple[int, int], pinpoints: list[list[int]], tile_size: int) -> int:
    """Tiles of an image of ``image_size`` (height, width) pixels."""
    height, width = select_best_resolution(image_size, pinpoints)
    return (height // tile_size) * (width // tile_size)


def video_token_count(frames: int, patches_per_side: int) -> int:
    """Tokens of a clip: every frame's patches and one newline at the end."""
    return frames * patches_per_side**2 + 1


def pack_tiles(tiles: Tensor, plan: GridPlan, newline: Tensor) -> Tensor:
    """Tile features [tiles, P * P, D] of one image -> its token features [plan.num_tokens, D]."""
    side = math.isqrt(tiles.shape[1])
    down, across = plan.rows // side, plan.columns // side
    grid = tiles[: down * across].reshape(down, across, side, side, -1)
    grid = grid.permute(4, 0, 2, 1, 3).reshape(-1, plan.rows, plan.columns)  # (D, rows, columns)
    grid = grid[:, plan.top : plan.bottom, plan.left : plan.right]
    if grid.shape[1:] != (plan.height, plan.width):
        shrunk = F.interpolate(grid[None].float(), size=(plan.height, plan.width), mode="bilinear")
        grid = shrunk[0].to(tiles.dtype)
    if plan.newline:
        column = newline.to(grid.dtype)[:, None, None].expand(-1, plan.height, 1)
        grid = torch.cat([grid, column], dim=-1)
    return grid.flatten(1).T  # (height * (width + 1), D)
