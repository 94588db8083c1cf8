"""The detector: right about true clips, whoever draws them, and not about others."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from core.evaluation.clips import compare, evaluate_detector, group_scenes, single_scenes
from core.evaluation.detection import detect
from core.evaluation.renderer import render_otherwise
from core.evaluation.tracks import name_path
from core.scenes.arrangements import sample_scene
from core.scenes.captions import moving
from core.scenes.scene import render


@pytest.mark.parametrize("draw", [render, render_otherwise])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_detector_is_right_on_true_clips(draw, count):
    rng = random.Random(2)
    scenes = single_scenes(rng, True) if count == 1 else group_scenes(rng, True, count)
    for kind, (right, total) in evaluate_detector(scenes, 50, 128, 9, draw).items():
        assert right / total >= 0.98, kind


def test_the_detector_is_right_on_any_look_and_length():
    for scenes, size, frames in (
        (single_scenes(random.Random(3), False, varied=True), 128, 9),
        (group_scenes(random.Random(4), False, 2, varied=True), 128, 9),
        (single_scenes(random.Random(5), True), 192, 17),
    ):
        for kind, (right, total) in evaluate_detector(scenes, 40, size, frames).items():
            assert right / total >= 0.97, kind


def test_the_detector_sees_what_is_wrong():
    """A clip of something else does not pass."""
    rng = random.Random(0)
    scenes = single_scenes(rng, True)
    shown = [next(scenes) for _ in range(40)]
    counts: Counter = Counter()
    for scene, other in pairwise(shown):
        compare(render(scene, 96, 96, 9), other, counts)
    assert counts["all three", "right"] <= 2 and counts["shape", "right"] < 0.45 * counts["shape", "total"]
    assert counts["motion", "right"] < 0.3 * counts["motion", "total"]


@pytest.mark.parametrize("wrong", ["still", "left", "growing", "circling", "bouncing", "changing"])
def test_no_motion_passes_for_another(wrong):
    rng = random.Random(1)
    for motion in (
        "left",
        "down right",
        "circling",
        "bouncing",
        "zigzagging",
        "entering",
        "changing",
        "still",
    ):
        if motion == wrong:
            continue
        asked, shown = sample_scene(rng, motion=wrong), sample_scene(rng, motion=motion)
        _, detections = detect(render(shown, 128, 128, 9), 1)
        assert detections[0].motion == moving(shown.objects[0]) != moving(asked.objects[0])


def test_both_renderers_draw_the_same_scene_differently():
    rng = random.Random(0)
    for _ in range(12):
        scene = sample_scene(rng, motion="still")
        one, other = render(scene, 128, 128)[0].astype(int), render_otherwise(scene, 128, 128)[0].astype(int)
        differing = (np.abs(one - other).max(-1) > 24).mean()
        assert 0.001 < differing < 0.12


def test_straight_paths_have_no_name():
    time = np.linspace(0, 1, 9)
    assert name_path(np.stack([time, 0.5 * time], axis=1)) == ""
    assert (
        name_path(np.stack([0.4 + 0.2 * np.cos(6.28 * time), 0.4 + 0.2 * np.sin(6.28 * time)], axis=1))
        == "moving in a circle"
    )
