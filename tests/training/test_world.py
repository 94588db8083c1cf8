"""The small world: scenes, questions, the split, and the judge."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from core.evaluation.answers import ABOUT_TWO, KINDS, Exam, is_right
from core.evaluation.clips import compare, evaluate_judge, pair_scenes, single_scenes
from core.training.drawing import COLOURS, SHAPES, TEXTURES, TONE, paint_background, photograph
from core.training.phrases import ASK, FOREIGN, MADE_UP, foreign, forms
from core.training.scenes import (
    MOTIONS,
    RELATIONS,
    UNSEEN_PAIRS,
    Scene,
    SceneObject,
    aspect_of,
    combinations,
    object_masks,
    render,
    sample_scene,
)
from core.training.tasks import Interview, exchanges, kinds_for, prompt, small_talk
from core.training.vision import GRID, patch_labels
from core.training.wording import caption, moving, place, position


def test_the_split_is_even_and_disjoint():
    seen, held, never = combinations(False), combinations(True), combinations(True, pairs=True)
    assert len({*seen, *held, *never}) == len(seen) + len(held) + len(never) == len(COLOURS) * len(SHAPES) * len(MOTIONS)
    for number, names in enumerate((COLOURS, SHAPES, MOTIONS)):
        assert {c[number] for c in seen} == {c[number] for c in held} == set(names)
    assert {c[:2] for c in never} == set(UNSEEN_PAIRS) and not {c[:2] for c in seen} & set(UNSEEN_PAIRS)
    rng = random.Random(0)
    drawn = {(o.colour, o.shape, o.motion) for n in range(400) for o in sample_scene(rng, 1 + n % 4).objects}
    assert drawn <= set(seen) and len(drawn) > 150


@pytest.mark.parametrize("size", [(128, 128), (128, 192), (192, 128)])
def test_scenes_stay_inside_and_repeat(size):
    for seed in range(60):
        count = 1 + seed % 4
        scene = sample_scene(random.Random(seed), count, aspect=aspect_of(*size))
        assert scene == sample_scene(random.Random(seed), count, aspect=aspect_of(*size)) and len(scene.objects) == count
        if scene.objects[0].motion in ("entering", "leaving"):
            continue
        frames = render(scene, *size, 9)
        ground = paint_background(scene.background_rgb, scene.texture, *size)
        border = [np.abs(f[edge].astype(int) - ground[edge]).max() for f in frames for edge in (0, -1)]
        border += [np.abs(f[:, edge].astype(int) - ground[:, edge]).max() for f in frames for edge in (0, -1)]
        assert max(border) <= 12, "at most the rim of an anti-aliased edge"


def test_objects_enter_and_leave():
    rng = random.Random(0)
    for motion, gone, there in (("entering", 0, -1), ("leaving", -1, 0)):
        for _ in range(30):
            scene = sample_scene(rng, motion=motion)
            masks = [object_masks(scene, 96, 96, time)[0] for time in (0.0, 1.0)]
            area = np.pi * (scene.objects[0].radius * 96) ** 2
            assert masks[gone].sum() == 0 and masks[there].sum() / 255 > 0.25 * area


def test_relations_hold_in_every_frame():
    rng, seen = random.Random(1), set()
    for _ in range(120):
        scene = sample_scene(rng, 2)
        first, second = scene.objects
        seen.add(scene.relation)
        for time in (0.0, 0.5, 1.0):
            (x1, y1, _), (x2, y2, _) = first.state(time), second.state(time)
            if scene.relation == "left of":
                assert x1 < x2 - 0.2
            elif scene.relation == "above":
                assert y1 < y2 - 0.2
        whole = object_masks(Scene(scene.background, (second,), scene.background_rgb), 96, 96)[0].sum()
        shown = object_masks(scene, 96, 96)[1].sum() / whole
        assert 0.35 < shown < 1.0 if scene.relation == "in front of" else shown > 0.98
    assert seen == set(RELATIONS)


def test_textures_have_two_near_tones():
    for texture in TEXTURES:
        tones = {tuple(pixel) for pixel in paint_background((20, 30, 40), texture, 60, 60).reshape(-1, 3)}
        assert tones == ({(20, 30, 40)} if texture == "plain" else {(20, 30, 40), (20 + TONE, 30 + TONE, 40 + TONE)})
    with pytest.raises(ValueError, match="unknown texture"):
        paint_background((0, 0, 0), "woven", 8, 8)


def test_photographs_differ_but_show_the_same():
    frames = render(sample_scene(random.Random(3)), 84, 84, 3)
    changed = [photograph(frames, random.Random(seed)) for seed in range(24)]
    assert all(made.shape == frames.shape and made.dtype == np.uint8 for made in changed)
    differences = [np.abs(made.astype(int) - frames).mean() for made in changed]
    assert min(differences) == 0.0 and 1.0 < max(differences) < 30.0


def test_twenty_forms_a_question_and_some_kept_out():
    for kind in (*ASK, "prompt"):
        seen, held = forms(kind, False), forms(kind, True)
        assert len(set(seen) | set(held)) >= 20, kind
        assert held and not (set(seen) & set(held)) - {"{it}"}, kind


def test_unknown_things_are_split_and_made_up_words_mean_nothing():
    seen, held = set(foreign(False)), set(foreign(True))
    assert held and not seen & held and seen | held == {*FOREIGN, *MADE_UP} and len(set(MADE_UP)) > 200
    rng = random.Random(0)
    scenes = [sample_scene(rng, count) for count in (1, 2, 3) for _ in range(40)]
    said = [e for scene in scenes for talk in exchanges(scene, rng, True, 6) for e in talk if e.kind not in ("refusal", "yes_no")]
    words = {word for e in said for word in f"{e.question} {e.answer}".lower().strip(".?").split()}
    assert len(words) > 80 and not words & set(MADE_UP)


def test_places_near_a_border_are_not_spoken_of():
    assert place(0.5, 0.5) == "center" and place(0.1, 0.1) == "top left" and place(0.5, 0.9) == "bottom"
    assert place(0.39, 0.5) == "" and position(SceneObject("red", "circle", 0.9, 0.5, 0.1)) == "right"


def truth_of(exchange, scene: Scene, clip: bool) -> bool:
    """Whether an answer is true, found without the code that made it."""
    words = exchange.answer.lower().rstrip(".")
    colours = [o.colour for o in scene.objects]
    shapes = [o.shape for o in scene.objects]
    if exchange.kind == "colour":
        return words.split()[-1] in colours
    if exchange.kind == "shape":
        return words.split()[-1] in shapes
    if exchange.kind == "count":
        return ["one", "two", "three", "four"][len(colours) - 1] in words
    if exchange.kind == "background":
        return scene.background in words and (scene.texture == "plain") != (scene.texture in words)
    if exchange.kind == "refusal":
        there = {f"the {name}" for name in (*shapes, *(f"{c} {s}" for c, s in zip(colours, shapes, strict=True)))}
        return words == "i do not see that here" and not any(name in exchange.question.lower() for name in there)
    if exchange.kind == "caption":
        return all(name in words for name in (*colours, *shapes, scene.background))
    if exchange.kind == "yes_no" and not exchange.question.lower().startswith("tell"):
        named = [(c, s) for c in COLOURS for s in SHAPES if f"{c} {s}" in exchange.question]
        return not named or "the " in exchange.question or (words == "yes") == (named[0] in zip(colours, shapes, strict=True))
    return True


@pytest.mark.parametrize("clip", [False, True])
def test_answers_are_true(clip):
    kinds = set()
    for seed in range(150):
        rng = random.Random(seed)
        scene = sample_scene(rng, 1 + seed % 4, motion=None if clip else "still", clip=clip)
        for talk in exchanges(scene, rng, clip, 6, held_out=seed % 2 == 0):
            for exchange in talk:
                kinds.add(exchange.kind)
                assert truth_of(exchange, scene, clip), (exchange, scene)
                assert is_right(exchange.answer, exchange.answer.upper()) and not is_right(exchange.answer, "It is a dog.")
    asked = {"speed", "motion"} if clip else set()
    assert kinds >= {"colour", "shape", "count", "yes_no", "caption", "refusal", "relation", "neighbour", *asked}


def test_yes_and_no_are_as_told():
    for seed in range(80):
        rng = random.Random(seed)
        scene = sample_scene(rng, 1 + seed % 2)
        for truth in (True, False):
            exchange = Interview(scene, rng, clip=True).yes_no(truth)
            assert exchange.answer == ("Yes." if truth else "No.")
            if "moving" in exchange.question and len(scene.objects) == 1:
                assert (moving(scene.objects[0]) in exchange.question) == truth


def test_prompts_name_what_is_wanted():
    rng = random.Random(5)
    for seed in range(80):
        scene = sample_scene(rng, 1 + seed % 3)
        for held_out in (False, True):
            text = prompt(scene, rng, True, held_out).lower()
            assert all(o.colour in text and o.shape in text for o in scene.objects)
        assert caption(scene, True).count("background") == 1
    talk = [small_talk(rng) for _ in range(60)]
    assert len({exchange.answer for exchange in talk}) >= 6


def test_the_judge_is_right_on_true_clips():
    for scenes in (single_scenes(random.Random(2), True), pair_scenes(random.Random(3), True)):
        for kind, (right, total) in evaluate_judge(scenes, 60, 128, 9).items():
            assert right / total >= 0.95, kind


def test_the_judge_sees_what_is_wrong():
    """A clip of something else does not pass."""
    rng = random.Random(0)
    scenes = single_scenes(rng, True)
    shown = [next(scenes) for _ in range(40)]
    counts: Counter = Counter()
    for scene, other in pairwise(shown):
        compare(render(scene, 96, 96, 9), other, counts)
    assert counts["all three", "right"] <= 2 and counts["shape", "right"] < 0.45 * counts["shape", "total"]


def test_exams_ask_every_kind():
    exam = Exam(seed=0, held_out=True)
    for kind in KINDS:
        if kind == "small_talk":
            continue
        talks = exam.talks(kind)
        for _ in range(4):
            medium, talk = next(talks)
            assert medium["type"] in ("image", "video") and len(talk) == (2 if kind == "two_turn" else 1)
            assert kind in ("two_turn", talk[0].kind)
    assert set(ABOUT_TWO) <= set(kinds_for(sample_scene(random.Random(0), 2), clip=False))
    never = [next(Exam(0, True, pairs=True).talks("colour"))[1][0].answer for _ in range(3)]
    assert all(any(colour in answer for colour, _ in UNSEEN_PAIRS) for answer in never)


def test_patches_are_labelled_by_what_covers_them():
    scene = Scene(
        "black", (SceneObject("red", "square", 0.25, 0.25, 0.2), SceneObject("blue", "circle", 0.75, 0.75, 0.3)), (12, 12, 12)
    )
    labels = {name: values.reshape(GRID, GRID) for name, values in patch_labels(scene, 0.5).items()}
    names = [*COLOURS]
    assert labels["colour"][1, 1] == names.index("red") + 1 and labels["colour"][4, 4] == names.index("blue") + 1
    assert labels["shape"][1, 1] == SHAPES.index("square") + 1 and labels["shape"][0, 5] == 0
    assert labels["size"][4, 4] == 2 and labels["place"][1, 1] == 1
    narrow = patch_labels(scene, 0.5, height=42)["colour"].reshape(GRID, GRID)
    assert not narrow[0].any() and not narrow[-1].any(), "the black border above and below shows nothing"
