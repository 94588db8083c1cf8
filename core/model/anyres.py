"""How an image becomes a grid of patches: here alone image and video tokens are counted (spec section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_utils import select_best_resolution

from core.errors import PromptError

SHRINK_ABOVE = 1.1


@dataclass(frozen=True)
class GridPlan:
    """The way of one image from tiles to tokens; all numbers in patches.

    ``rows x columns`` is the full grid; ``top:bottom, left:right`` cuts the padding away.
    ``height x width`` is what is left after shrinking; with ``newline`` every row ends with one token more.
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
        """Tokens the image takes among the words."""
        return self.height * (self.width + self.newline)


def plan_grid(
    image_size: tuple[int, int],
    pinpoints: list[list[int]],
    tile_size: int,
    patches_per_side: int,
    max_tiles: int | None,
    newline: bool = True,
) -> GridPlan:
    """Plan the token grid of an image.

    Args:
        image_size: (height, width) in pixels.
        pinpoints: (height, width) in pixels of the canvases an image can be laid out on.
        tile_size: side of a tile in pixels.
        patches_per_side: P.
        max_tiles: a grid of clearly more patches than these tiles have is shrunk; None: never.
        newline: whether every row of patches ends with one token more.
    """
    height, width = image_size
    best_height, best_width = select_best_resolution((height, width), pinpoints)
    rows = best_height // tile_size * patches_per_side
    columns = best_width // tile_size * patches_per_side
    # cut the padding: above and below a picture that is wider than the canvas, else left and right
    top, bottom = 0, rows
    left, right = 0, columns
    if width / height > columns / rows:
        kept = max(1, int(round(height * (columns / width), 7)))
        top = (rows - kept) // 2
        bottom = rows - top
    else:
        kept = max(1, int(round(width * (rows / height), 7)))
        left = (columns - kept) // 2
        right = columns - left
    # shrink what is left, both sides by the same ratio
    out_height = bottom - top
    out_width = right - left
    if max_tiles is not None:
        ratio = math.sqrt(out_height * out_width / (max_tiles * patches_per_side**2))
        if ratio > SHRINK_ABOVE:
            out_height = max(1, int(out_height // ratio))
            out_width = max(1, int(out_width // ratio))
    return GridPlan(rows, columns, top, bottom, left, right, out_height, out_width, newline)


def video_token_count(frames: int, patches_per_side: int) -> int:
    """Tokens of a clip: every frame's patches and one newline at the end."""
    return frames * patches_per_side**2 + 1


def pack_tiles(tiles: Tensor, plan: GridPlan, newline: Tensor) -> Tensor:
    """Tile features [T, P * P, D] of one image -> its token features [plan.num_tokens, D].

    Args:
        newline: features [D] of the token that ends a row of patches.
    """
    # the tiles side by side, each where it was cut from
    side = math.isqrt(tiles.shape[1])  # P
    down, across = plan.rows // side, plan.columns // side
    grid = tiles[: down * across].reshape(down, across, side, side, -1)
    grid = grid.permute(4, 0, 2, 1, 3).reshape(-1, plan.rows, plan.columns)  # (D, rows, columns)
    # without the padding, shrunk, and with the ends of the rows
    grid = grid[:, plan.top : plan.bottom, plan.left : plan.right]
    if grid.shape[1:] != (plan.height, plan.width):
        shrunk = F.interpolate(grid[None].float(), size=(plan.height, plan.width), mode="bilinear")
        grid = shrunk[0].to(tiles.dtype)
    if plan.newline:
        column = newline.to(grid.dtype)[:, None, None].expand(-1, plan.height, 1)
        grid = torch.cat([grid, column], dim=-1)
    return grid.flatten(1).T  # (height * (width + 1), D)


def pack_media(features: Sequence[Tensor], plans: Sequence[GridPlan | None], newline: Tensor) -> Tensor:
    """Patch features [T, P * P, D] of every medium -> tokens of all of them, in order [K, D].

    Args:
        plans: of an image, its grid; None for a clip, whose frames stand one behind the other.
        newline: [D], closes every row of an image and every clip.
    """
    packed = []
    for own, plan in zip(features, plans, strict=True):
        if plan is None:
            packed.append(torch.cat([own.flatten(0, 1), newline[None].to(own.dtype)]))
        else:
            packed.append(pack_tiles(own, plan, newline))
    return torch.cat(packed)


def place_media(embeds: Tensor, where: Tensor, features: Tensor, kind: str) -> Tensor:
    """Embedded words [B, S, D] with the media's tokens [K, D] in the places [B, S] that are kept for them.

    Raises:
        PromptError: there are more or fewer places than tokens.
    """
    if int(where.sum()) != len(features):
        raise PromptError(
            f"The text holds {int(where.sum())} {kind} tokens but the given {kind}s make {len(features)}."
        )
    return embeds.masked_scatter(where[..., None], features.to(embeds.dtype))
