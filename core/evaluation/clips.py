"""Generated clips and the autoencoder's reconstructions, judged by OpenCV."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from core.evaluation.judge import Verdict, judge
from core.pipelines import GeneratedVideo, HaploOmni
from core.training.scenes import BACKGROUNDS, combinations, render, sample_object, sample_scene
from core.training.tasks import MOVES, article

Scores = dict[str, tuple[int, int]]


def ask_for(combination: tuple[str, str, str], background: str) -> str:
    """The plainest prompt for a (colour, shape, motion) on a background."""
    colour, shape, motion = combination
    moving = " that stays still" if motion == "still" else f" {MOVES[motion][1]}"
    return f"{article(colour)} {colour} {shape}{moving} on a {background} background"


def compare(verdict: Verdict, wanted: tuple[str, str, str], background: str, counts: Counter) -> None:
    """Count what of the wanted is there."""
    right = {
        "colour": verdict.colour == wanted[0],
        "shape": verdict.shape == wanted[1],
        "motion": verdict.motion == wanted[2],
        "background": verdict.background == background,
    }
    right["all three"] = right["colour"] and right["shape"] and right["motion"]
    for key, value in right.items():
        counts[key, "total"] += 1
        counts[key, "right"] += value


def scores(counts: Counter) -> Scores:
    """{kind: (right, total)} in the order first seen."""
    return {key: (counts[key, "right"], counts[key, "total"]) for key, what in counts if what == "total"}


def evaluate_generation(
    omni: HaploOmni, count: int, held_out: bool, seed: int = 0, progress: Callable[[int], None] = lambda _: None
) -> tuple[Scores, list[tuple[str, np.ndarray]]]:
    """Generate ``count`` clips, combinations in a shuffled round; returns scores and the (prompt, frames) of all."""
    rng = random.Random(seed)
    pool = combinations(held_out)
    rng.shuffle(pool)
    counts: Counter = Counter()
    clips = []
    for index in range(count):
        wanted, background = pool[index % len(pool)], rng.choice(list(BACKGROUNDS))
        prompt = ask_for(wanted, background)
        *_, last = omni.text_to_video(prompt, seed=seed + index)
        assert isinstance(last, GeneratedVideo)
        compare(judge(last.frames), wanted, background, counts)
        clips.append((prompt, last.frames))
        progress(1)
    return scores(counts), clips


@torch.no_grad()
def evaluate_autoencoder(omni: HaploOmni, count: int, seed: int = 1) -> tuple[Scores, float]:
    """Encode and decode true clips: what the judge still recognises, and the objects' PSNR in dB."""
    rng = random.Random(seed)
    pool = combinations(True)
    height, width = omni.profile["generation"]["height"], omni.profile["generation"]["width"]
    frames_count = omni.profile["generation"]["num_frames"]
    counts: Counter = Counter()
    errors = []
    for index in range(count):
        wanted = pool[index % len(pool)]
        scene = sample_scene(rng, background=rng.choice(list(BACKGROUNDS)))
        scene = type(scene)(scene.background, (sample_object(wanted, rng),), scene.background_rgb)
        truth = render(scene, height, width, frames_count)
        video = torch.from_numpy(truth).permute(3, 0, 1, 2)[None].to(omni.vae.device, omni.vae.dtype) / 127.5 - 1
        decoded = omni.vae.decode(omni.vae.encode(video).latent_dist.mode()).sample[0].float()
        frames = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()
        compare(judge(frames), wanted, scene.background, counts)
        object_pixels = np.abs(truth.astype(int) - np.asarray(scene.background_rgb)).max(-1) > 10
        errors.append(float(((frames[object_pixels].astype(float) - truth[object_pixels]) ** 2).mean()))
    return scores(counts), float(10 * np.log10(255.0**2 / np.mean(errors)))


def evaluate_judge(count: int, size: int, frames: int, seed: int = 2) -> Scores:
    """The judge on true clips: its own ceiling."""
    rng = random.Random(seed)
    pool = combinations(True)
    counts: Counter = Counter()
    for index in range(count):
        wanted = pool[index % len(pool)]
        scene = sample_scene(rng)
        scene = type(scene)(scene.background, (sample_object(wanted, rng),), scene.background_rgb)
        compare(judge(render(scene, size, size, frames)), wanted, scene.background, counts)
    return scores(counts)
