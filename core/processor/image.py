"""Images to tiles (spec section 4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature
from transformers.image_processing_utils import select_best_resolution

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def normalize(tile: Image.Image, factor: float, mean: list[float], std: list[float]) -> np.ndarray:
    """RGB image of 8 bits -> float32 [3, H, W], scaled by ``factor`` and normalized channel by channel."""
    scaled = (np.asarray(tile, dtype=np.float64) * factor).astype(np.float32)  # (H, W, 3)
    normalized = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return normalized.transpose(2, 0, 1)


def resize(image: Image.Image, size: tuple[int, int], resample: int) -> Image.Image:
    """Resize to ``size``, (width, height) in pixels, one axis at a time.

    The width comes first, except where the height shrinks more than the width does.
    Rounding to 8 bits after the first pass makes the order visible.
    Pillow's own differs between versions, so it is fixed here, to the one behind the reference numbers.
    """
    width, height = size
    if height < image.height and image.width * height < width * image.height:
        return image.resize((image.width, height), resample=resample).resize(size, resample=resample)
    return image.resize((width, image.height), resample=resample).resize(size, resample=resample)


class TileProcessor(BaseImageProcessor):
    """The settings that pictures and clips share.

    Args:
        size: ``{"height", "width"}`` of a tile in pixels, both the same.
        resample, rescale_factor, image_mean, image_std: as in the released ``preprocessor_config.json``.
    """

    def __init__(
        self,
        size: dict[str, int] | None = None,
        resample: int = 3,
        rescale_factor: float = 1 / 255,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = size or {"height": 224, "width": 224}
        self.resample = resample
        self.rescale_factor = rescale_factor
        self.image_mean = image_mean or CLIP_MEAN
        self.image_std = image_std or CLIP_STD


class HaploOmniImageProcessor(TileProcessor):
    """Lays an image out on the best of several resolutions and cuts it into square tiles.

    Args:
        image_grid_pinpoints: (height, width) candidates in pixels.
        settings: of :class:`TileProcessor`.
    """

    model_input_names = ["pixel_values", "image_sizes"]

    def __init__(self, image_grid_pinpoints: list[list[int]] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        side = self.size["height"]
        self.image_grid_pinpoints = image_grid_pinpoints or [[side, side]]

    def tiles(self, image: Image.Image) -> list[Image.Image]:
        """The tiles of an RGB image, each ``size`` large, row by row."""
        side = self.size["height"]
        best_height, best_width = select_best_resolution(
            (image.height, image.width), self.image_grid_pinpoints
        )
        # as large as fits, the sides in proportion
        scale_width = best_width / image.width
        scale_height = best_height / image.height
        width, height = best_width, best_height
        if scale_width < scale_height:
            height = min(math.ceil(image.height * scale_width), best_height)
        else:
            width = min(math.ceil(image.width * scale_height), best_width)
        resized = resize(image, (width, height), self.resample)
        # in the middle of a black canvas; an odd rest leaves it a pixel short, which the last resize repairs
        pad_x = (best_width - width) // 2
        pad_y = (best_height - height) // 2
        canvas = Image.new("RGB", (width + 2 * pad_x, height + 2 * pad_y))
        canvas.paste(resized, (pad_x, pad_y))
        # cut into tiles, of which the last of a row or column may be short
        tiles = []
        for top in range(0, canvas.height, side):
            for left in range(0, canvas.width, side):
                box = (left, top, min(left + side, canvas.width), min(top + side, canvas.height))
                tiles.append(resize(canvas.crop(box), (side, side), self.resample))
        return tiles

    def preprocess(self, images: list[Image.Image], **kwargs: Any) -> BatchFeature:  # noqa: ARG002
        """RGB images to padded tiles.

        Returns:
            ``pixel_values`` float32 [images, most tiles, 3, side, side], zeros where an image has fewer, and
            ``image_sizes`` [images, 2], (height, width) in pixels.
        """
        factors = (self.rescale_factor, self.image_mean, self.image_std)
        batches = [np.stack([normalize(tile, *factors) for tile in self.tiles(image)]) for image in images]
        most = max(len(tiles) for tiles in batches)
        padded = [np.pad(tiles, ((0, most - len(tiles)), (0, 0), (0, 0), (0, 0))) for tiles in batches]
        return BatchFeature(
            {
                "pixel_values": torch.from_numpy(np.stack(padded)),
                "image_sizes": torch.tensor([[image.height, image.width] for image in images]),
            }
        )
