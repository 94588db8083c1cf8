"""Generated clips and the autoencoder's reconstructions, looked at by the detector."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX

from core.evaluation.detection import detect
from core.pipelines import GeneratedVideo, HaploOmni
from core.scenes.arrangements import sample_scene
from core.scenes.captions import moving
from core.scenes.prompts import prompt
from core.scenes.rasterizer import dilated
from core.scenes.scene import Scene, combinations, drawn_pixels, render

DISTINCT = 4.0  # levels of 255, the mean over all pixels

Scores = dict[str, tuple[int, int]]


def single_scenes(
    rng: random.Random, held_out: bool, pairs: bool = False, varied: bool = False
) -> Iterator[Scene]:
    """Endless scenes of one object, every combination of one side of the split in a shuffled round.

    Args:
        rng: the only source of chance.
        held_out: the side of the split.
        pairs: of the unseen pairs instead.
        varied: in any look.
    """
    pool = combinations(held_out, pairs)
    rng.shuffle(pool)
    while True:
        for combination in pool:
            yield sample_scene(rng, combination=combination, varied=varied)


def group_scenes(rng: random.Random, held_out: bool, count: int = 2, varied: bool = False) -> Iterator[Scene]:
    """Endless scenes of two or three objects that do not overlap.

    No colour comes twice: the detector tells objects by their colours.
    """
    while True:
        scene = sample_scene(rng, count, held_out, varied=varied)
        if scene.relation != "in front of" and len({item.colour for item in scene.objects}) == count:
            yield scene


def compare(frames: np.ndarray, scene: Scene, counts: Counter) -> None:
    """Count what of the scene a clip uint8 [T, H, W, 3] shows."""
    background, detections = detect(frames, most=len(scene.objects))
    found = {detection.colour: detection for detection in detections}
    right = {"colour": True, "shape": True, "motion": True}
    for item in scene.objects:
        detection = found.get(item.colour)
        # a single object of another colour may have the right shape and motion
        if detection is None and len(scene.objects) == 1 and detections:
            detection = detections[0]
        right["colour"] &= detection is not None and detection.colour == item.colour
        right["shape"] &= detection is not None and detection.shape == item.shape
        right["motion"] &= detection is not None and detection.motion == moving(item)
    right["background"] = background == scene.background
    every = "all three" if len(scene.objects) == 1 else "all of both"
    right[every] = right["colour"] and right["shape"] and right["motion"]
    for key, value in right.items():
        counts[key, "total"] += 1
        counts[key, "right"] += value


def scores(counts: Counter) -> Scores:
    """{kind: (right, total)} in the order first seen."""
    return {key: (counts[key, "right"], counts[key, "total"]) for key, what in counts if what == "total"}


def evaluate_generation(
    omni: HaploOmni,
    scenes: Iterator[Scene],
    count: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
    held_out: bool = True,
    ask: Callable[[Scene, random.Random], str] | None = None,
    **size: int,
) -> tuple[Scores, list[tuple[str, np.ndarray]]]:
    """Generate ``count`` clips of scenes and look at them.

    Args:
        seed: of the prompts; every clip has the next one.
        progress: called with 1 after every clip.
        held_out: in templates that training never uses.
        ask: puts scenes into words instead.
        size: ``height``, ``width`` and ``num_frames`` other than the checkpoint's own.

    Returns:
        The scores, and the (prompt, frames uint8 [T, H, W, 3]) of all clips.
    """
    rng = random.Random(f"{seed}/prompts")
    counts: Counter = Counter()
    clips = []
    for index in range(count):
        scene = next(scenes)
        asked = ask(scene, rng) if ask else prompt(scene, rng, clip=True, held_out=held_out)
        frames = _generate(omni, asked, seed + index, **size)
        compare(frames, scene, counts)
        clips.append((asked, frames))
        progress(1)
    return scores(counts), clips


def _generate(omni: HaploOmni, asked: str, seed: int, **size: Any) -> np.ndarray:
    """The clip uint8 [T, H, W, 3] of a prompt."""
    *_, last = omni.text_to_video(asked, seed=seed, **size)
    assert isinstance(last, GeneratedVideo)
    return last.frames


@torch.no_grad()
def reconstruct(vae: AutoencoderKLCogVideoX, truth: np.ndarray) -> np.ndarray:
    """A clip uint8 [T, H, W, 3] through the autoencoder and back."""
    pixels = torch.from_numpy(truth).permute(3, 0, 1, 2)[None]  # (1, 3, T, H, W)
    video = pixels.to(vae.device, vae.dtype) / 127.5 - 1
    decoded = vae.decode(vae.encode(video).latent_dist.mode()).sample[0].float()  # (3, T, H, W)
    levels = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(1, 2, 3, 0).cpu().numpy()


@dataclass(frozen=True)
class Reconstruction:
    """What an autoencoder does to true clips.

    Args:
        scores: what the detector still finds.
        object_psnr: of the objects' pixels over all clips, dB.
        edge_error: mean absolute error of the gradients where something is drawn, grey levels.
    """

    scores: Scores
    object_psnr: float
    edge_error: float


def evaluate_autoencoder(
    vae: AutoencoderKLCogVideoX,
    scenes: Iterator[Scene],
    count: int,
    size: tuple[int, int, int] = (9, 128, 128),
    draw: Callable[..., np.ndarray] = render,
) -> Reconstruction:
    """Encode and decode ``count`` true clips of ``size`` (frames, height, width).

    Args:
        draw: the renderer: (scene, height, width, frames) -> uint8 [T, H, W, 3].
    """
    frames, height, width = size
    counts: Counter = Counter()
    errors = []
    edges = []
    for _ in range(count):
        scene = next(scenes)
        truth = draw(scene, height, width, frames)
        made = reconstruct(vae, truth)
        compare(made, scene, counts)
        # squared error of the objects' pixels
        drawn = drawn_pixels(scene, truth)
        error = made.astype(float) - truth
        errors.append(float((error[drawn] ** 2).mean()))
        # gradients of the error, down and across, on and around the objects
        near = dilated(drawn, 5)
        slopes = [np.abs(np.diff(error, axis=axis, append=0.0))[near].mean() for axis in (1, 2)]
        edges.append(float(np.mean(slopes)))
    psnr = float(10 * np.log10(255.0**2 / np.mean(errors)))
    return Reconstruction(scores(counts), psnr, float(np.mean(edges)))


def evaluate_detector(
    scenes: Iterator[Scene], count: int, size: int, frames: int, draw: Callable[..., np.ndarray] = render
) -> Scores:
    """The detector on ``count`` true clips, ``frames`` of ``size`` x ``size`` pixels: its own ceiling.

    Args:
        draw: the renderer: (scene, height, width, frames) -> uint8 [T, H, W, 3].
    """
    counts: Counter = Counter()
    for _ in range(count):
        scene = next(scenes)
        compare(draw(scene, size, size, frames), scene, counts)
    return scores(counts)


def evaluate_seeds(omni: HaploOmni, count: int, seed: int = 0) -> Scores:
    """Whether two seeds of the same prompt give visibly distinct clips, for ``count`` prompts.

    Distinct ones have objects that lie apart or differ in size.
    """
    rng = random.Random(seed)
    scenes = single_scenes(rng, held_out=True)
    right = 0
    for index in range(count):
        asked = prompt(next(scenes), rng, clip=True, held_out=True)
        one, other = (_generate(omni, asked, number).astype(float) for number in (index, 1000 + index))
        right += float(np.abs(one - other).mean()) > DISTINCT
    return {"distinct": (right, count)}
