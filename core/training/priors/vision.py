"""The small vision prior: a CLIPVisionModel that learns what covers every patch of a scene.

Answers alone teach vision slowly: eight words about a picture of 36 patches.
Here every patch is asked for colour, shape, size and place of the object that covers most of it.
All patches together are asked for the number of objects and for the background.
The probes are linear and thrown away afterwards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from core.files import SHIPPED_SHARD_BYTES
from core.opencv import cv2
from core.scenes.arrangements import sample_scene
from core.scenes.captions import PLACES, place
from core.scenes.rasterizer import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, augment
from core.scenes.scene import COUNT_WORDS, Scene, object_masks, render
from core.training.data.tiles import PATCH, PATCHES, TILE, draw_picture, normalize_frames
from core.training.data.tokenization import IGNORE
from core.training.loop.processes import BatchShard
from core.training.loop.task import SavedTask

GRID = isqrt(PATCHES)  # patches along one side of a tile
COVERED = 0.12  # of a patch's area: less counts as background
SIZES = ("small", "big")
PER_PATCH = {
    "colour": len(COLOURS) + 1,
    "shape": len(SHAPES) + 1,
    "size": len(SIZES) + 1,
    "place": len(PLACES) + 1,
}
WHOLE = {"count": len(COUNT_WORDS), "background": len(BACKGROUNDS), "texture": len(TEXTURES)}


@dataclass
class PatchBatch:
    """Tiles and what their patches show.

    Args:
        tiles: [B, 3, 84, 84].
        patches: for every question class ids [B, 36], 0 where nothing is.
        whole: for every question class ids [B].
    """

    tiles: Tensor
    patches: dict[str, Tensor]
    whole: dict[str, Tensor]


def vision_config() -> CLIPVisionConfig:
    """0.8M parameters: four blocks of width 128 over 36 patches of 14 pixels."""
    return CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=TILE,
        patch_size=PATCH,
        hidden_act="quick_gelu",
    )


def patch_labels(scene: Scene, time: float, height: int = TILE, width: int = TILE) -> dict[str, np.ndarray]:
    """For every question of PER_PATCH class ids [36] of the object that covers most of each patch.

    0 for none; IGNORE where the object's size or place is between two words.

    Args:
        time: the moment in [0, 1] that is shown.
        height, width: of the picture in pixels, in the middle of a black tile.
    """
    most = np.full((GRID, GRID), COVERED)
    labels = {name: np.zeros((GRID, GRID), np.int64) for name in PER_PATCH}
    top, left = (TILE - height) // 2, (TILE - width) // 2
    for item, mask in zip(scene.objects, object_masks(scene, height, width, time), strict=True):
        # how much of every patch it covers, and where that is more than any object before
        tile = np.zeros((TILE, TILE), np.uint8)
        tile[top : top + height, left : left + width] = mask
        share = cv2.resize(tile, (GRID, GRID), interpolation=cv2.INTER_AREA) / 255.0
        ahead = share > most
        most = np.where(ahead, share, most)
        # what there is to say of it
        x, y, _ = item.state(time)
        where = place(x, y)
        steady = item.motion not in ("growing", "shrinking")
        labels["colour"][ahead] = list(COLOURS).index(item.colour) + 1
        labels["shape"][ahead] = SHAPES.index(item.shape) + 1
        labels["size"][ahead] = SIZES.index(item.size) + 1 if item.size and steady else IGNORE
        labels["place"][ahead] = PLACES.index(where) + 1 if where else IGNORE
    return {name: values.reshape(-1) for name, values in labels.items()}


def draw_frame(rng: random.Random) -> tuple[Scene, np.ndarray, float, tuple[int, int]]:
    """A picture as people upload it, or a frame of a clip.

    Returns:
        The scene, its picture uint8 [1, h, w, 3], the moment it shows in [0, 1], and (h, w).
    """
    if rng.random() < 0.6:
        scene, frames, size = draw_picture(rng)
        return scene, frames, 0.5, size
    scene = sample_scene(rng, rng.choice((1, 1, 2, 3)), varied=True)
    time = rng.random()
    return scene, augment(render(scene, TILE, TILE, times=[time]), rng), time, (TILE, TILE)


def patch_batch(rngs: list[random.Random]) -> PatchBatch:
    """One picture or frame of every generator of chance."""
    tiles = []
    labels = []
    whole = []
    for rng in rngs:
        scene, frames, time, size = draw_frame(rng)
        tiles.append(normalize_frames(frames))
        labels.append(patch_labels(scene, time, *size))
        # what enters or leaves may not be there
        hidden = any(item.motion in ("entering", "leaving") for item in scene.objects)
        count = IGNORE if hidden else len(scene.objects)
        whole.append((count, list(BACKGROUNDS).index(scene.background), TEXTURES.index(scene.texture)))
    ids = torch.tensor(whole)
    return PatchBatch(
        torch.cat(tiles),
        {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in PER_PATCH},
        {name: ids[:, place] for place, name in enumerate(WHOLE)},
    )


class PatchProbes(nn.Module):
    """Linear probes of patch states of ``width``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patches = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in PER_PATCH.items()})
        self.whole = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in WHOLE.items()})

    def forward(self, hidden: Tensor, batch: PatchBatch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropies, and shares of covered patches named right: scalars, summed over rows.

        Args:
            hidden: patch states [B, 36, width].
        """
        hidden = self.norm(hidden.float())
        loss = hidden.new_zeros(())
        for name, probe in self.patches.items():
            logits = probe(hidden).float()  # (B, 36, classes)
            labels = batch.patches[name].to(hidden.device)  # (B, 36)
            error = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
            loss = loss + _row_means(error, labels != IGNORE).sum()
            if name == "shape":
                right = _row_means((logits.detach().argmax(-1) == labels).float(), labels > 0).sum()
        pooled = hidden.mean(dim=1)  # (B, width)
        for name, probe in self.whole.items():
            labels = batch.whole[name].to(hidden.device)  # (B,)
            logits = probe(pooled).float()  # (B, classes)
            loss = loss + F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        return loss, right


def _row_means(values: Tensor, counted: Tensor) -> Tensor:
    """Means over the counted patches of every row [B, 36] -> [B]; 0 where none is counted."""
    return (values * counted).sum(1) / counted.sum(1).clamp(min=1)


class VisionPrior(SavedTask):
    """Trains a small CLIPVisionModel on scenes.

    Args:
        rows: tiles a step.
        seed: of data and starting values.
    """

    def __init__(self, rows: int = 160, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.loss_weights = {"patches": 1.0}
        self.rows = rows
        self.seed = seed
        self.vision = CLIPVisionModel._from_config(vision_config(), attn_implementation="eager")
        self.probes = PatchProbes(self.vision.config.hidden_size)
        for name, parameter in self.vision.named_parameters():
            # the norm of the class token has no use here
            parameter.requires_grad_("post_layernorm" not in name)

    def sample_batch(self, share: BatchShard) -> dict[str, Any]:
        rngs = [random.Random(f"{self.seed}/vision/{share.step}/{row}") for row in share.rows(self.rows)]
        return {"patches": patch_batch(rngs)}

    def num_items(self, batches: dict[str, Any]) -> dict[str, int]:
        rows = len(batches["patches"].tiles)
        return {"patches": rows, "shape_accuracy": rows}

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        """The patches' loss and the shapes named right: scalars, each summed over tiles."""
        batch = batches["patches"]
        states = self.vision(batch.tiles.to(self.vision.device)).last_hidden_state[:, 1:]  # (B, 36, width)
        loss, right = self.probes(states, batch)
        return {"patches": loss, "shape_accuracy": right}

    def save(self, folder: Path) -> None:
        """Write the prior as transformers does."""
        self.vision.save_pretrained(folder, max_shard_size=SHIPPED_SHARD_BYTES)
