"""What is where: a probe on the pre-decoder's image tokens that teaches it to see.

The released pre-decoder is born of a trained CLIP-ViT (paper section 3.2). The small one has no such parent, and answers
alone teach vision slowly: eight words about a picture of 36 patches. The probe asks every patch for the colour and the
shape of what covers it, and all patches together for count, place, size and background. Its 128 tiles take an eighth of
a joint step's time (0.42 of 3.5 s on one thread), and it is thrown away after training.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import isqrt

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.layers import FullAttention
from core.model.decoder import HaploOmniModel
from core.training.batches import IGNORE, PATCHES, TILE, normalise_frames
from core.training.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, render, sample_scene, shape_mask
from core.training.tasks import position

GRID = isqrt(PATCHES)  # patches along one side of a tile
COVERED = 0.12  # of a patch's area: less counts as background
PLACES = tuple(f"{row} {column}".strip() or "center" for row in ("top", "", "bottom") for column in ("left", "", "right"))
WHOLE = {"count": 5, "place": len(PLACES), "size": 2, "background": len(BACKGROUNDS)}


@dataclass
class SightBatch:
    """``tiles`` [B, 3, 84, 84]; ``colour, shape`` [B, 36], 0 where nothing is; ``whole`` one [B] of class ids a question."""

    tiles: Tensor
    colour: Tensor
    shape: Tensor
    whole: dict[str, Tensor]


def patch_labels(scene: Scene, time: float) -> tuple[np.ndarray, np.ndarray]:
    """Colour and shape ids [36] of the object that covers most of each patch at ``time``; 0 for none."""
    most = np.full((GRID, GRID), COVERED)
    colour, shape = np.zeros((GRID, GRID), np.int64), np.zeros((GRID, GRID), np.int64)
    for item in scene.objects:
        x, y, radius = item.state(time)
        mask = shape_mask(item.shape, x * TILE, y * TILE, radius * TILE, TILE, TILE)
        share = cv2.resize(mask, (GRID, GRID), interpolation=cv2.INTER_AREA) / 255.0
        ahead = share > most
        most = np.where(ahead, share, most)
        colour[ahead], shape[ahead] = list(COLOURS).index(item.colour) + 1, SHAPES.index(item.shape) + 1
    return colour.reshape(-1), shape.reshape(-1)


def sight_batch(rng: random.Random, rows: int) -> SightBatch:
    """Single frames of training scenes: single objects in the middle of any motion, and still groups."""
    tiles, colours, shapes = [], [], []
    whole: dict[str, list[int]] = {name: [] for name in WHOLE}
    for _ in range(rows):
        scene = sample_scene(rng, count=1 if rng.random() < 0.6 else rng.randint(2, 4))
        single = len(scene.objects) == 1
        tiles.append(normalise_frames(render(scene, TILE, TILE)))
        colour, shape = patch_labels(scene, 0.5)
        colours.append(colour)
        shapes.append(shape)
        whole["count"].append(len(scene.objects))
        whole["place"].append(PLACES.index(position(scene.objects[0])) if single else IGNORE)
        whole["size"].append(int(scene.objects[0].size == "big") if single else IGNORE)
        whole["background"].append(list(BACKGROUNDS).index(scene.background))
    ids = {name: torch.tensor(values) for name, values in whole.items()}
    return SightBatch(torch.cat(tiles), torch.from_numpy(np.stack(colours)), torch.from_numpy(np.stack(shapes)), ids)


class VisionProbe(nn.Module):
    """Linear readers of the pre-decoder's last states; ``width`` is the pre part's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.shape = nn.Linear(width, len(SHAPES) + 1)
        self.whole = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in WHOLE.items()})

    def forward(self, model: HaploOmniModel, batch: SightBatch) -> tuple[Tensor, float]:
        """Mean cross-entropy of all questions, and the share of covered patches whose shape is read right."""
        device = self.colour.weight.device
        embeds = model.patch_embed(batch.tiles.to(device)) + model.pre_pos_embed
        places = torch.arange(embeds.shape[1], device=device).expand(len(embeds), -1)
        hidden = self.norm(model.encode(embeds, places, FullAttention(eager=device.type == "cpu")).float())
        shape, colour = batch.shape.to(device), batch.colour.to(device)
        shape_logits = self.shape(hidden).float()
        losses = [
            F.cross_entropy(shape_logits.flatten(0, 1), shape.flatten()),
            F.cross_entropy(self.colour(hidden).float().flatten(0, 1), colour.flatten()),
        ]
        pooled = hidden.mean(dim=1)
        for name, reader in self.whole.items():
            losses.append(F.cross_entropy(reader(pooled).float(), batch.whole[name].to(device), ignore_index=IGNORE))
        covered = shape > 0
        right = (shape_logits.detach().argmax(-1)[covered] == shape[covered]).float().mean()
        return torch.stack(losses).sum(), float(right)
