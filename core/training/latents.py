"""Clips to learn generation from: encoded once, kept on disk, drawn again and again under freshly worded prompts."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from tqdm import tqdm

from core.errors import CheckpointError
from core.training.batches import PICTURE_MOTIONS, NoiseBatch, Sentences, noise_rows
from core.training.scenes import Scene, aspect_of, render, sample_scene
from core.training.tasks import prompt
from core.training.trainer import Share

CHUNK = 40  # clips a file
MIDDLE = 0.6  # 0: timesteps are drawn uniformly


@dataclass(frozen=True)
class ClipShape:
    """Clips of one size: ``frames`` x ``height`` x ``width`` pixels, ``clips`` of them, drawn with ``weight``."""

    frames: int
    height: int
    width: int
    clips: int
    weight: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"

    @property
    def tokens(self) -> int:
        """Noise tokens of one clip."""
        return ((self.frames - 1) // 4 + 1) * (self.height // 16) * (self.width // 16)


STILLS = (ClipShape(1, 128, 128, 6000, 8.0), ClipShape(1, 128, 192, 800), ClipShape(1, 192, 128, 800))
CLIPS = (
    ClipShape(9, 128, 128, 8000, 10.0),
    ClipShape(9, 128, 192, 600),
    ClipShape(9, 192, 128, 600),
    ClipShape(17, 128, 128, 600),
    ClipShape(25, 128, 128, 400),
)


def clip_scene(shape: ClipShape, number: int, seed: int, held_out: bool = False) -> Scene:
    """The scene of one clip; its number and the seed decide."""
    rng = random.Random(f"{seed}/{shape.name}/{number}")
    aspect = aspect_of(shape.height, shape.width)
    still = shape.frames == 1
    count = rng.choice((1, 1, 1, 1, 1, 1, 2, 2, 2, 3))
    motion = rng.choice(PICTURE_MOTIONS) if still else None
    return sample_scene(rng, count, held_out, motion, aspect=aspect, clip=not still)


def clips_seed(folder: Path, begin: int | None = None) -> int:
    """The seed that a folder's clips were drawn with; ``begin`` writes it down in a new folder.

    Raises:
        CheckpointError: the folder does not say.
    """
    file = folder / "seed.json"
    if not file.is_file():
        if begin is None:
            raise CheckpointError(f"{folder} holds no encoded clips; make them with python -m core.training clips.")
        part = file.with_suffix(f".part{os.getpid()}")
        part.write_text(json.dumps(begin))
        os.replace(part, file)
    return int(json.loads(file.read_text()))


@torch.no_grad()
def encode_clips(
    vae: AutoencoderKLCogVideoX,
    folder: Path,
    shapes: Sequence[ClipShape],
    seed: int = 0,
    held_out: bool = False,
    process: int = 0,
    processes: int = 1,
) -> None:
    """Encode what the folder still lacks, in chunks; every process takes its share of them. Latents [n, F, 16, h, w].

    The folder keeps the seed it was begun with, since clips and prompts are drawn from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seed = clips_seed(folder, seed)
    vae.eval()
    device = vae.device
    todo = [(shape, start) for shape in shapes for start in range(0, shape.clips, CHUNK)][process::processes]
    for shape, start in tqdm(todo, desc="encoding clips", mininterval=5.0):
        file = folder / f"{shape.name}-{start // CHUNK}.pt"
        numbers = range(start, min(shape.clips, start + CHUNK))
        if file.exists() and len(torch.load(file, weights_only=True)) >= len(numbers):
            continue
        made = []
        per_pass = max(1, 40 * 9 * 128 * 128 // (shape.frames * shape.height * shape.width * 4))
        for begin in range(0, len(numbers), per_pass):
            scenes = [clip_scene(shape, number, seed, held_out) for number in numbers[begin : begin + per_pass]]
            pixels = torch.stack([torch.from_numpy(render(s, shape.height, shape.width, shape.frames)) for s in scenes])
            video = pixels.permute(0, 4, 1, 2, 3).float().to(device) / 127.5 - 1.0
            with torch.autocast(device.type, torch.bfloat16):
                z = vae.encode(video).latent_dist.mode()
            made.append((z.float() * vae.config.scaling_factor).permute(0, 2, 1, 3, 4).to(torch.bfloat16).cpu())
        part = file.with_suffix(f".part{process}")
        torch.save(torch.cat(made), part)
        os.replace(part, file)


def towards_middle(fraction: float) -> float:
    """A fraction of the schedule moved towards its middle, where shapes are decided: uniform draws fall there two and a half
    times as densely, and at both ends .6 times (Esser et al. 2024, section 3.1, found the middle to be worth more)."""
    return fraction + MIDDLE * math.sin(2 * math.pi * fraction) / (2 * math.pi)


def towards_noise(fraction: float) -> float:
    """A fraction of the schedule moved towards its noisy end, where motion is decided: twice as many draws there as uniform
    ones, few at the other end."""
    return math.sqrt(fraction)


class LatentClips:
    """Encoded clips of several shapes.

    Args:
        sentences: of the tokenizer that reads the prompts.
        folder: what :func:`encode_clips` wrote.
        shapes: those to draw from.
        held_out: whether they are of the held-out side of the split.

    Raises:
        CheckpointError: the folder has fewer clips than the shapes say.
    """

    def __init__(self, sentences: Sentences, folder: Path, shapes: Sequence[ClipShape], held_out: bool = False) -> None:
        self.sentences, self.shapes, self.held_out = sentences, list(shapes), held_out
        self.seed = clips_seed(folder)
        self.latents: dict[str, Tensor] = {}
        for shape in shapes:
            files = [folder / f"{shape.name}-{start // CHUNK}.pt" for start in range(0, shape.clips, CHUNK)]
            missing = [file.name for file in files if not file.exists()]
            if missing:
                raise CheckpointError(
                    f"{folder} lacks {missing[0]} of {shape.clips} encoded clips; finish them with "
                    "python -m core.training clips, or give with --lengths the factor they were made with."
                )
            self.latents[shape.name] = torch.cat([torch.load(file, weights_only=True) for file in files])[: shape.clips]

    def draw(self, key: str, rows: int, share: Share) -> NoiseBatch:
        """The share's part of ``rows`` of the first shape, or of another as many as have the same number of noise tokens.

        ``key`` decides everything.
        """
        rng = random.Random(key)
        shape = rng.choices(self.shapes, [shape.weight for shape in self.shapes])[0]
        rows = max(share.parts, round(rows * self.shapes[0].tokens / shape.tokens))
        picks, texts, bands, rngs = [], [], [], []
        for row in share.rows(rows):
            own = random.Random(f"{key}/{row}")
            number = own.randrange(shape.clips)
            scene = clip_scene(shape, number, self.seed, self.held_out)
            picks.append(number)
            # one in ten has no prompt, for guidance
            texts.append("" if own.random() < 0.1 else prompt(scene, own, shape.frames > 1, self.held_out))
            # clips take turns: their motion is decided in the noise, their shapes in the middle
            focus = towards_noise if shape.frames > 1 and row % 2 else towards_middle
            bands.append(focus((row + own.random()) / rows))  # one timestep from each of as many bands as rows
            rngs.append(own)
        return noise_rows(self.sentences, rngs, self.latents[shape.name][picks], texts, bands)
