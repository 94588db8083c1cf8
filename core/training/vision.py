"""The small vision prior: a CLIPVisionModel that learns what covers every patch of a scene.

Answers alone teach vision slowly: eight words about a picture of 36 patches. Here every patch is asked for the colour,
the shape, the size and the place of the object that covers most of it, and all patches together for the number of
objects and the background. The readers are linear and thrown away afterwards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from core.training.batches import IGNORE, PATCH, PATCHES, TILE, draw_picture, normalise_frames
from core.training.drawing import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, photograph
from core.training.scenes import Scene, object_masks, render, sample_scene
from core.training.trainer import SavedTask, Share
from core.training.wording import PLACES, place

GRID = isqrt(PATCHES)  # patches along one side of a tile
COVERED = 0.12  # of a patch's area: less counts as background
SIZES = ("small", "big")
PER_PATCH = {"colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1, "size": len(SIZES) + 1, "place": len(PLACES) + 1}
WHOLE = {"count": 5, "background": len(BACKGROUNDS), "texture": len(TEXTURES)}


@dataclass
class SightBatch:
    """``tiles`` [B, 3, 84, 84]; ``patches`` class ids [B, 36] a question, 0 where nothing is; ``whole`` [B] a question."""

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
    """Class ids [36] of the object that covers most of each patch at ``time``, on a tile with black borders.

    0 for none; IGNORE where the object's size or place is between two words.
    """
    most = np.full((GRID, GRID), COVERED)
    labels = {name: np.zeros((GRID, GRID), np.int64) for name in PER_PATCH}
    top, left = (TILE - height) // 2, (TILE - width) // 2
    for item, mask in zip(scene.objects, object_masks(scene, height, width, time), strict=True):
        tile = np.zeros((TILE, TILE), np.uint8)
        tile[top : top + height, left : left + width] = mask
        share = cv2.resize(tile, (GRID, GRID), interpolation=cv2.INTER_AREA) / 255.0
        ahead = share > most
        most = np.where(ahead, share, most)
        x, y, _ = item.state(time)
        where = place(x, y)
        steady = item.motion not in ("growing", "shrinking")
        labels["colour"][ahead] = list(COLOURS).index(item.colour) + 1
        labels["shape"][ahead] = SHAPES.index(item.shape) + 1
        labels["size"][ahead] = SIZES.index(item.size) + 1 if item.size and steady else IGNORE
        labels["place"][ahead] = PLACES.index(where) + 1 if where else IGNORE
    return {name: values.reshape(-1) for name, values in labels.items()}


def draw_sight(rng: random.Random) -> tuple[Scene, np.ndarray, float, tuple[int, int]]:
    """A picture as people upload it, or a frame of a clip: scene, uint8 [1, h, w, 3], time, (h, w)."""
    if rng.random() < 0.6:
        scene, frames, size = draw_picture(rng)
        return scene, frames, 0.5, size
    scene = sample_scene(rng, rng.choice((1, 1, 2)))
    time = rng.random()
    return scene, photograph(render(scene, TILE, TILE, times=[time]), rng), time, (TILE, TILE)


def sight_batch(rngs: list[random.Random]) -> SightBatch:
    """One frame a generator of chance."""
    tiles, labels, whole = [], [], []
    for rng in rngs:
        scene, frames, time, size = draw_sight(rng)
        tiles.append(normalise_frames(frames))
        labels.append(patch_labels(scene, time, *size))
        hidden = any(item.motion in ("entering", "leaving") for item in scene.objects)
        texture = TEXTURES.index(scene.texture)
        whole.append((IGNORE if hidden else len(scene.objects), list(BACKGROUNDS).index(scene.background), texture))
    ids = torch.tensor(whole)
    return SightBatch(
        torch.cat(tiles),
        {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in PER_PATCH},
        {name: ids[:, place] for place, name in enumerate(WHOLE)},
    )


class SightReaders(nn.Module):
    """Linear readers of patch states of ``width``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patches = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in PER_PATCH.items()})
        self.whole = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in WHOLE.items()})

    def forward(self, hidden: Tensor, batch: SightBatch) -> tuple[Tensor, Tensor]:
        """Patch states [B, 36, width] -> mean cross-entropies added up, times B; and the share of covered patches whose
        shape is read right, times B."""
        hidden = self.norm(hidden.float())
        losses = []
        for name, reader in self.patches.items():
            logits, labels = reader(hidden).float().flatten(0, 1), batch.patches[name].to(hidden.device).flatten()
            losses.append(F.cross_entropy(logits, labels, ignore_index=IGNORE))
            if name == "shape":
                covered = labels > 0
                right = (logits.detach().argmax(-1)[covered] == labels[covered]).float().mean()
        pooled = hidden.mean(dim=1)
        for name, reader in self.whole.items():
            labels = batch.whole[name].to(hidden.device)
            losses.append(F.cross_entropy(reader(pooled).float(), labels, ignore_index=IGNORE))
        return torch.stack(losses).sum() * len(pooled), right * len(pooled)


class VisionPrior(SavedTask):
    """Trains a small CLIPVisionModel on scenes.

    Args:
        rows: tiles a step.
        seed: of data and starting values.
    """

    def __init__(self, rows: int = 160, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.weights = {"sight": 1.0}
        self.rows, self.seed = rows, seed
        self.vision = CLIPVisionModel._from_config(vision_config(), attn_implementation="eager")
        self.readers = SightReaders(self.vision.config.hidden_size)
        for name, parameter in self.vision.named_parameters():
            # the class token's last reader has no use here
            parameter.requires_grad_("post_layernorm" not in name)

    def draw(self, share: Share) -> dict[str, Any]:
        rngs = [random.Random(f"{self.seed}/vision/{share.step}/{row}") for row in share.rows(self.rows)]
        return {"sight": sight_batch(rngs)}

    def counts(self, batches: dict[str, Any]) -> dict[str, int]:
        rows = len(batches["sight"].tiles)
        return {"sight": rows, "shapes read": rows}

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        batch = batches["sight"]
        states = self.vision(batch.tiles.to(self.vision.device)).last_hidden_state[:, 1:]
        loss, right = self.readers(states, batch)
        return {"sight": loss, "shapes read": right}

    def save(self, folder: Path) -> None:
        """Write the prior as transformers does."""
        self.vision.save_pretrained(folder)
