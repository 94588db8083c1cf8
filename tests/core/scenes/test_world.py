"""The drawn world: scenes, the split, looks, and what patches show."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from core.scenes.arrangements import sample_scene
from core.scenes.captions import place, position
from core.scenes.looks import PLAIN
from core.scenes.motions import MOTIONS
from core.scenes.rasterizer import (
    BRIGHT,
    COLOURS,
    EDGES,
    SHAPES,
    TEXTURES,
    TONE,
    augment,
    nearest_names,
    paint_background,
    wide_jitter,
)
from core.scenes.scene import (
    RELATIONS,
    UNSEEN_PAIRS,
    Scene,
    SceneObject,
    aspect_of,
    backgrounds_for,
    combinations,
    object_masks,
    render,
)
from core.training.priors.vision import GRID, patch_labels


def test_the_split_is_even_and_disjoint():
    seen, held, never = combinations(False), combinations(True), combinations(True, pairs=True)
    assert (
        len({*seen, *held, *never})
        == len(seen) + len(held) + len(never)
        == len(COLOURS) * len(SHAPES) * len(MOTIONS)
    )
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
        assert (
            scene == sample_scene(random.Random(seed), count, aspect=aspect_of(*size))
            and len(scene.objects) == count
        )
        if scene.objects[0].motion in ("entering", "leaving"):
            continue
        frames = render(scene, *size, 9)
        background = paint_background(scene.background_rgb, scene.texture, *size)
        border = [np.abs(f[edge].astype(int) - background[edge]).max() for f in frames for edge in (0, -1)]
        border += [
            np.abs(f[:, edge].astype(int) - background[:, edge]).max() for f in frames for edge in (0, -1)
        ]
        assert max(border) <= 12, "at most the rim of an anti-aliased edge"


def test_objects_enter_and_leave():
    rng = random.Random(0)
    for motion, gone, there in (("entering", 0, -1), ("leaving", -1, 0)):
        for _ in range(30):
            scene = sample_scene(rng, motion=motion, varied=True)
            masks = [object_masks(scene, 96, 96, time)[0] for time in (0.0, 1.0)]
            area = np.pi * (scene.objects[0].radius * 96) ** 2
            assert masks[gone].sum() == 0 and masks[there].sum() / 255 > 0.2 * area


def test_everything_holds_at_the_middle_of_the_clip():
    """A picture shows an object where and as its numbers say."""
    rng = random.Random(3)
    for motion in MOTIONS:
        item = sample_scene(rng, motion=motion).objects[0]
        assert (
            item.state(0.5) == pytest.approx((item.x, item.y, item.radius)) and item.rgb_at(0.5) == item.rgb
        )
        moved = np.abs(np.subtract(item.state(0.0), item.state(0.375))).max()
        assert (moved > 0.01) == (motion not in ("still", "changing"))


def test_colours_change_and_stand_out():
    rng = random.Random(4)
    for _ in range(60):
        scene = sample_scene(rng, motion="changing")
        item = scene.objects[0]
        assert (
            item.rgb_at(0.0) == item.rgb
            and item.rgb_at(1.0) == item.becomes_rgb
            and item.becomes != item.colour
        )
        assert scene.background in backgrounds_for([item.colour, item.becomes])
    assert all("gray" in backgrounds_for([colour]) for colour in COLOURS)
    for colour, (background, lightness) in {
        "white": ("white", "light blue"),
        "black": ("black", "navy"),
    }.items():
        assert not {background, lightness} & set(backgrounds_for([colour]))


def test_things_move_together_and_in_turn():
    rng, seen, turns = random.Random(5), set(), 0
    for number in range(240):
        scene = sample_scene(rng, 2 + number % 2)
        seen.add((len(scene.objects), scene.together))
        places = [np.array([item.state(time)[:2] for item in scene.objects]) for time in (0.0, 0.5, 1.0)]
        spread = [np.linalg.norm(place - place.mean(0), axis=1).mean() for place in places]
        if scene.together == "apart":
            assert spread[0] < spread[1] < spread[2]
        elif scene.together == "towards each other":
            assert spread[0] > spread[1] > spread[2]
        elif scene.together == "past each other":
            axis = np.abs(places[0][0] - places[2][0]).argmax()
            assert (places[0][0] - places[0][1])[axis] * (places[2][0] - places[2][1])[axis] < 0
        if scene.in_turn:
            turns += 1
            first, second = sorted(scene.objects, key=lambda item: item.begin)
            assert first.state(0.5) == first.state(1.0) and second.state(0.5) == second.state(0.0)
            assert first.state(0.0) != first.state(0.5) and second.state(0.5) != second.state(1.0)
    assert (
        seen >= {(count, together) for count in (2, 3) for together in ("", "apart", "towards each other")}
        and turns > 8
    )
    assert (2, "past each other") in seen


def test_up_to_six_do_not_touch():
    rng = random.Random(6)
    for count in (4, 5, 6):
        scene = sample_scene(rng, count, clip=False)
        covered = sum((mask > 0).astype(int) for mask in object_masks(scene, 96, 96))
        assert len(scene.objects) == count and covered.max() == 1


def test_looks_vary_and_show_the_same():
    rng, looks = random.Random(7), set()
    for number in range(60):
        scene = sample_scene(rng, motion="still", varied=True)
        looks.add(scene.look)
        drawn, plain = (
            render(replace(scene, look=look), 96, 96)[0].astype(int) for look in (scene.look, PLAIN)
        )
        assert (np.abs(drawn - plain).max(-1) > 60).mean() < 0.08, number
    assert (
        len(looks) > 20
        and {look.edge for look in looks} == set(EDGES)
        and any(look.outline and look.shadow for look in looks)
    )
    for colour, rgb in COLOURS.items():
        assert (
            nearest_names(np.array([wide_jitter(colour, rng) for _ in range(30)]), COLOURS) == [colour] * 30
        )
        assert max(np.abs(np.subtract(wide_jitter(colour, rng), rgb)).max() for _ in range(30)) > 9


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


def test_textures_stay_near_their_colour():
    for rgb in ((20, 30, 40), (230, 236, 240)):
        for texture in TEXTURES:
            painted = paint_background(rgb, texture, 60, 60).astype(int) - rgb
            sign = -1 if max(rgb) > BRIGHT else 1
            assert (painted * sign >= 0).all() and (painted * sign).max() == (
                0 if texture == "plain" else TONE
            )
            assert texture == "plain" or 0.03 < (painted.sum(-1) != 0).mean() < 1.0
    with pytest.raises(ValueError, match="unknown texture"):
        paint_background((0, 0, 0), "woven", 8, 8)


def test_photographs_differ_but_show_the_same():
    frames = render(sample_scene(random.Random(3)), 84, 84, 3)
    changed = [augment(frames, random.Random(seed)) for seed in range(24)]
    assert all(made.shape == frames.shape and made.dtype == np.uint8 for made in changed)
    differences = [np.abs(made.astype(int) - frames).mean() for made in changed]
    assert min(differences) == 0.0 and 1.0 < max(differences) < 30.0


def test_places_near_a_border_are_not_spoken_of():
    assert place(0.5, 0.5) == "center" and place(0.1, 0.1) == "top left" and place(0.5, 0.9) == "bottom"
    assert place(0.39, 0.5) == "" and position(SceneObject("red", "circle", 0.9, 0.5, 0.1)) == "right"


def test_patches_are_labelled_by_what_covers_them():
    scene = Scene(
        "black",
        (SceneObject("red", "square", 0.25, 0.25, 0.2), SceneObject("blue", "circle", 0.75, 0.75, 0.3)),
        (12, 12, 12),
    )
    labels = {name: values.reshape(GRID, GRID) for name, values in patch_labels(scene, 0.5).items()}
    names = [*COLOURS]
    assert (
        labels["colour"][1, 1] == names.index("red") + 1 and labels["colour"][4, 4] == names.index("blue") + 1
    )
    assert labels["shape"][1, 1] == SHAPES.index("square") + 1 and labels["shape"][0, 5] == 0
    assert labels["size"][4, 4] == 2 and labels["place"][1, 1] == 1
    narrow = patch_labels(scene, 0.5, height=42)["colour"].reshape(GRID, GRID)
    assert not narrow[0].any() and not narrow[-1].any(), "the black border above and below shows nothing"
