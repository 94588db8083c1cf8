"""Video frames to model input: one tile a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

from core.processor.image import TileProcessor, normalize, resize


class HaploOmniVideoProcessor(TileProcessor):
    """Resizes every frame to one square tile; sampling frames from a file is :mod:`core.media`'s work."""

    model_input_names = ["pixel_values_videos"]

    def preprocess(self, videos: list[np.ndarray], **kwargs: Any) -> BatchFeature:  # noqa: ARG002
        """Clips, each uint8 RGB [T, H, W, 3] with the same T, frame by frame to tiles.

        Returns:
            ``pixel_values_videos`` float32 [clips, T, 3, side, side].
        """
        clips = [np.stack([self._tile(frame) for frame in video]) for video in videos]
        return BatchFeature({"pixel_values_videos": torch.from_numpy(np.stack(clips))})

    def _tile(self, frame: np.ndarray) -> np.ndarray:
        """A frame uint8 [H, W, 3] as one tile, float32 [3, side, side]."""
        tile = resize(Image.fromarray(frame), (self.size["width"], self.size["height"]), self.resample)
        return normalize(tile, self.rescale_factor, self.image_mean, self.image_std)
