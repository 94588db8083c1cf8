"""Clips to learn generation from: encoded once, kept on disk, drawn again and again under new prompts."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from tqdm import tqdm

from core.devices import computes_bfloat16
from core.errors import CheckpointError
from core.geometry import noise_tokens
from core.scenes.arrangements import sample_scene
from core.scenes.motions import PICTURE_MOTIONS
from core.scenes.prompts import prompt
from core.scenes.scene import Scene, aspect_of, render
from core.training.data.noise import (
    UNPROMPTED,
    NoiseBatch,
    bias_timesteps_to_middle,
    bias_timesteps_to_noise,
    noise_rows,
)
from core.training.data.tokenization import CachedTokenizer
from core.training.loop.processes import BatchShard
from core.training.loop.provenance import (
    FILE,
    claim,
    digest,
    inputs_of,
    load_latents,
    save_whole,
    weights_digest,
)

CHUNK = 40  # clips a file
PIXELS_A_PASS = 10 * 9 * 128 * 128  # that are encoded together
DIGITS = re.compile(r"\d+\.\d+(e-?\d+)?")


@dataclass(frozen=True)
class ClipShape:
    """Clips of one size.

    Args:
        frames, height, width: of a clip, in pixels.
        clips: how many there are.
        weight: how often one of them is drawn, against other shapes.
    """

    frames: int
    height: int
    width: int
    clips: int
    weight: float = 1.0

    @property
    def name(self) -> str:
        """Frames, height and width as they stand in file names, such as "9x128x128"."""
        return f"{self.frames}x{self.height}x{self.width}"

    @property
    def tokens(self) -> int:
        """Noise tokens of one clip."""
        return noise_tokens(self.frames, self.height, self.width)


STILLS = (
    ClipShape(1, 128, 128, 6000, 8.0),
    ClipShape(1, 128, 192, 800),
    ClipShape(1, 192, 128, 800),
    ClipShape(1, 192, 192, 800),
)
CLIPS = (
    ClipShape(9, 128, 128, 8000, 8.0),
    ClipShape(9, 128, 192, 800),
    ClipShape(9, 192, 128, 800),
    ClipShape(9, 192, 192, 600),
    ClipShape(17, 128, 128, 1000, 1.5),
    ClipShape(25, 128, 128, 800, 1.5),
    ClipShape(25, 192, 192, 200, 0.5),
)


def clip_scene(shape: ClipShape, number: int, seed: int, held_out: bool = False) -> Scene:
    """The scene of one clip; its shape, its number and the seed decide everything."""
    rng = random.Random(f"{seed}/{shape.name}/{number}")
    aspect = aspect_of(shape.height, shape.width)
    still = shape.frames == 1
    count = rng.choice((1, 1, 1, 1, 1, 2, 2, 2, 3, 3))
    motion = rng.choice(PICTURE_MOTIONS) if still else None
    return sample_scene(rng, count, held_out, motion, aspect=aspect, clip=not still)


def autoencoder_digest(vae: AutoencoderKLCogVideoX) -> str:
    """A short name of an autoencoder; another one makes other latents."""
    return digest(weights_digest(vae), vae.config.scaling_factor)


def _scenes_digest(seed: int, held_out: bool) -> str:
    """A short name of the drawn world: of a few scenes, to four digits.

    Prompts are worded anew from the scenes' numbers.
    A world that is drawn in another way has other clips under the same numbers.
    """
    shapes = (*STILLS[:2], *CLIPS[:2])
    scenes = [repr(clip_scene(shape, number, seed, held_out)) for shape in shapes for number in range(4)]
    return digest([DIGITS.sub(lambda digits: f"{float(digits[0]):.4f}", scene) for scene in scenes])


def clips_seed(folder: Path, autoencoder: str, held_out: bool = False, begin: int | None = None) -> int:
    """The seed that a folder's clips were drawn with, after a look at whether they are the right ones.

    Args:
        autoencoder: from :func:`autoencoder_digest`.
        held_out: on which side of the split they are.
        begin: the seed to write down in a new folder; an old one keeps its own.

    Raises:
        CheckpointError: there are none, or they are of another autoencoder or another drawn world.
    """
    found = any(folder.glob("*.pt"))
    if (folder / FILE).is_file():
        begin = inputs_of(folder).get("seed", begin or 0)
    elif begin is None and not found:
        raise CheckpointError(
            f"{folder} holds no encoded clips; make them with python -m core.training clips."
        )
    seed = begin or 0
    claim(folder, {"seed": seed, "autoencoder": autoencoder, "scenes": _scenes_digest(seed, held_out)}, found)
    return seed


def _holds(file: Path, clips: int) -> bool:
    """Whether so many encoded clips can be read from a file; one that is damaged is made again."""
    try:
        return file.exists() and len(load_latents(file)) >= clips
    except CheckpointError:
        return False


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
    """Encode what the folder still lacks, in files of latents bfloat16 [n, F, 16, h, w].

    The folder keeps the seed it was begun with, since clips and prompts are drawn from it.

    Args:
        vae: the autoencoder, where it is to compute.
        shapes: what the folder is to hold.
        seed: of the scenes, in a new folder.
        held_out: on which side of the split they are.
        process, processes: which one this is, and of how many; every process encodes its share.

    Raises:
        CheckpointError: the folder's clips are of another autoencoder or another drawn world.
    """
    seed = clips_seed(folder, autoencoder_digest(vae), held_out, begin=seed)
    vae.eval()
    todo = [(shape, start) for shape in shapes for start in range(0, shape.clips, CHUNK)][process::processes]
    for shape, start in tqdm(todo, desc="encoding clips", mininterval=5.0):
        file = _chunk_file(folder, shape, start)
        numbers = range(start, min(shape.clips, start + CHUNK))
        if _holds(file, len(numbers)):
            continue
        scenes = [clip_scene(shape, number, seed, held_out) for number in numbers]
        per_pass = max(1, PIXELS_A_PASS // (shape.frames * shape.height * shape.width))
        made = [_encode(vae, shape, scenes[n : n + per_pass]) for n in range(0, len(scenes), per_pass)]
        save_whole(torch.cat(made), file)


def _chunk_file(folder: Path, shape: ClipShape, start: int) -> Path:
    """The file that holds the clips of a shape from number ``start`` on."""
    return folder / f"{shape.name}-{start // CHUNK}.pt"


def _encode(vae: AutoencoderKLCogVideoX, shape: ClipShape, scenes: Sequence[Scene]) -> Tensor:
    """Latents bfloat16 [n, F, 16, h, w] of scenes, on the CPU."""
    device = vae.device
    clips = np.stack([render(scene, shape.height, shape.width, shape.frames) for scene in scenes])
    video = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float().to(device) / 127.5 - 1.0  # (n, 3, T, H, W)
    with torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device)):
        latents = vae.encode(video).latent_dist.mode()  # (n, 16, F, h, w)
    scaled = latents.float() * vae.config.scaling_factor
    return scaled.permute(0, 2, 1, 3, 4).to(torch.bfloat16).cpu()


class LatentClips:
    """Encoded clips of several shapes.

    Args:
        tokenizer: reads the prompts.
        folder: what :func:`encode_clips` wrote.
        shapes: those to draw from.
        autoencoder: which one must have encoded them, see :func:`autoencoder_digest`.
        held_out: whether they are of the held-out side of the split.

    Raises:
        CheckpointError: the folder has fewer clips than the shapes say, or they are of something else.
    """

    def __init__(
        self,
        tokenizer: CachedTokenizer,
        folder: Path,
        shapes: Sequence[ClipShape],
        autoencoder: str,
        held_out: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.shapes = list(shapes)
        self.held_out = held_out
        self.seed = clips_seed(folder, autoencoder, held_out)
        self.key = digest(inputs_of(folder), [asdict(shape) for shape in shapes])
        self.latents: dict[str, Tensor] = {}
        for shape in shapes:
            files = [_chunk_file(folder, shape, start) for start in range(0, shape.clips, CHUNK)]
            missing = [file.name for file in files if not file.exists()]
            latents = torch.cat([load_latents(file) for file in files]) if not missing else torch.zeros(0)
            if len(latents) < shape.clips:
                raise CheckpointError(
                    f"{folder} lacks {(missing or [files[-1].name])[0]} of {shape.clips} encoded clips; "
                    "finish them with python -m core.training clips, "
                    "or give with --scale the factor they were made with."
                )
            self.latents[shape.name] = latents[: shape.clips]

    def sample_batch(self, key: str, rows: int, share: BatchShard) -> NoiseBatch:
        """The share's part of a batch of one shape; ``key`` decides everything.

        Args:
            rows: of the first shape; of another as many as have the same number of noise tokens.
        """
        rng = random.Random(key)
        shape = rng.choices(self.shapes, [shape.weight for shape in self.shapes])[0]
        rows = max(share.parts, round(rows * self.shapes[0].tokens / shape.tokens))
        rngs = [random.Random(f"{key}/{row}") for row in share.rows(rows)]
        picks: list[int] = []
        texts: list[str] = []
        fractions: list[float] = []
        for row, own in zip(share.rows(rows), rngs, strict=True):
            number = own.randrange(shape.clips)
            scene = clip_scene(shape, number, self.seed, self.held_out)
            picks.append(number)
            unprompted = own.random() < UNPROMPTED
            texts.append("" if unprompted else prompt(scene, own, shape.frames > 1, self.held_out))
            # every other clip is noisier: motion is decided in the noise, shapes in the middle
            bias = bias_timesteps_to_noise if shape.frames > 1 and row % 2 else bias_timesteps_to_middle
            # every row has a timestep of its own part of the schedule
            fractions.append(bias((row + own.random()) / rows))
        return noise_rows(self.tokenizer, rngs, self.latents[shape.name][picks], texts, fractions)
