"""Generated clips and the autoencoder's reconstructions, judged by OpenCV."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from core.evaluation.judge import judge
from core.pipelines import GeneratedVideo, HaploOmni
from core.training.drawing import paint_background
from core.training.scenes import Scene, aspect_of, combinations, render, sample_object, sample_scene
from core.training.tasks import prompt
from core.training.wording import moving

Scores = dict[str, tuple[int, int]]
# what the judge can tell apart when two objects overlap is too little to count
PAIR_RELATIONS = ("left of", "above")


def single_scenes(
    rng: random.Random, held_out: bool, pairs: bool = False, aspect: tuple[float, float] = (1.0, 1.0)
) -> Iterator[Scene]:
    """Endless scenes of one object, every combination of one side of the split in a shuffled round."""
    pool = combinations(held_out, pairs)
    rng.shuffle(pool)
    while True:
        for combination in pool:
            frame = sample_scene(rng, motion="still", aspect=aspect)
            yield replace(frame, objects=(sample_object(combination, rng, aspect=aspect),))


def pair_scenes(rng: random.Random, held_out: bool) -> Iterator[Scene]:
    """Endless scenes of two objects side by side or one above the other."""
    while True:
        scene = sample_scene(rng, 2, held_out)
        if scene.relation in PAIR_RELATIONS:
            yield scene


def compare(frames: np.ndarray, scene: Scene, counts: Counter) -> None:
    """Count what of the scene a clip shows."""
    ground, verdicts = judge(frames, most=len(scene.objects))
    found = {verdict.colour: verdict for verdict in verdicts}
    right = {"colour": True, "shape": True, "motion": True}
    for item in scene.objects:
        verdict = found.get(item.colour)
        if verdict is None and len(scene.objects) == 1 and verdicts:
            verdict = verdicts[0]
        doing = moving(item)
        right["colour"] &= verdict is not None and verdict.colour == item.colour
        right["shape"] &= verdict is not None and verdict.shape == item.shape
        right["motion"] &= verdict is not None and verdict.motion == doing
    right["background"] = ground == scene.background
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
    **size: int,
) -> tuple[Scores, list[tuple[str, np.ndarray]]]:
    """Generate ``count`` clips of scenes; returns scores and the (prompt, frames) of all.

    Args:
        held_out: in phrasings that training never used.
        size: ``height``, ``width`` and ``num_frames`` other than the checkpoint's own.
    """
    rng = random.Random(f"{seed}/prompts")
    counts: Counter = Counter()
    clips = []
    for index in range(count):
        scene = next(scenes)
        asked = prompt(scene, rng, clip=True, held_out=held_out)
        *_, last = omni.text_to_video(asked, seed=seed + index, **size)
        assert isinstance(last, GeneratedVideo)
        compare(last.frames, scene, counts)
        clips.append((asked, last.frames))
        progress(1)
    return scores(counts), clips


@torch.no_grad()
def reconstruct(omni: HaploOmni, truth: np.ndarray) -> np.ndarray:
    """A clip uint8 [T, H, W, 3] through the autoencoder and back."""
    video = torch.from_numpy(truth).permute(3, 0, 1, 2)[None].to(omni.vae.device, omni.vae.dtype) / 127.5 - 1
    decoded = omni.vae.decode(omni.vae.encode(video).latent_dist.mode()).sample[0].float()
    return ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()


def evaluate_autoencoder(omni: HaploOmni, count: int, seed: int = 1) -> tuple[Scores, float]:
    """Encode and decode true clips: what the judge still recognises, and the objects' PSNR in dB."""
    rng = random.Random(seed)
    own = omni.profile["generation"]
    height, width, frames = own["height"], own["width"], own["num_frames"]
    scenes = single_scenes(rng, held_out=True, aspect=aspect_of(height, width))
    counts: Counter = Counter()
    errors = []
    for _ in range(count):
        scene = next(scenes)
        truth = render(scene, height, width, frames)
        made = reconstruct(omni, truth)
        compare(made, scene, counts)
        ground = paint_background(scene.background_rgb, scene.texture, height, width).astype(int)
        object_pixels = np.abs(truth.astype(int) - ground).max(-1) > 10
        errors.append(float(((made[object_pixels].astype(float) - truth[object_pixels]) ** 2).mean()))
    return scores(counts), float(10 * np.log10(255.0**2 / np.mean(errors)))


def evaluate_judge(scenes: Iterator[Scene], count: int, size: int, frames: int) -> Scores:
    """The judge on true clips: its own ceiling."""
    counts: Counter = Counter()
    for _ in range(count):
        scene = next(scenes)
        compare(render(scene, size, size, frames), scene, counts)
    return scores(counts)


def evaluate_seeds(omni: HaploOmni, count: int, seed: int = 0) -> Scores:
    """Whether two seeds of the same prompt give visibly distinct clips: their objects lie apart or differ in size."""
    rng = random.Random(seed)
    scenes = single_scenes(rng, held_out=True)
    right = 0
    for index in range(count):
        asked = prompt(next(scenes), rng, clip=True, held_out=True)
        clips = []
        for number in (0, 1):
            *_, last = omni.text_to_video(asked, seed=1000 * number + index)
            assert isinstance(last, GeneratedVideo)
            clips.append(last.frames.astype(float))
        right += float(np.abs(clips[0] - clips[1]).mean()) > 4.0  # levels of 255, over all pixels
    return {"distinct": (right, count)}
