"""Random scenes: which shapes, where, doing what, so that all of it can be seen and said."""

from __future__ import annotations

import random
from dataclasses import replace

from core.scenes.looks import PLAIN, sample_look
from core.scenes.motions import DIAGONALS, DIRECTIONS, FIRST_PART, LAST_PART, MOTIONS, SLOW, TOGETHER
from core.scenes.placement import SQUARE, Aspect, between, choices, sample_object
from core.scenes.rasterizer import BACKGROUND_JITTER, BACKGROUNDS, COLOURS, TEXTURES, jitter, wide_jitter
from core.scenes.scene import RELATIONS, Combination, Scene, SceneObject, backgrounds_for


def sample_scene(
    rng: random.Random,
    count: int = 1,
    held_out: bool = False,
    motion: str | None = None,
    aspect: Aspect = SQUARE,
    clip: bool = True,
    pairs: bool = False,
    varied: bool = False,
    combination: Combination | None = None,
) -> Scene:
    """A random scene of ``count`` objects.

    Args:
        rng: the only source of chance.
        count: objects, 1 to 6.
            Two stand in a relation and may move, three may move, more are still and do not touch.
        held_out: take combinations from the held-out side of the split.
        motion: fix a single object's motion; None draws one.
        aspect: the frame's (width, height) in units of its shorter side.
        clip: False keeps several objects still.
        pairs: take a single object of the unseen pairs.
        varied: in any look and in colours from a wider range, not the plain ones.
        combination: fix a single object's (colour, shape, motion).
    """
    relation = together = ""
    # until there is a background that everything stands out from
    while True:
        if count == 1:
            wanted = motion or rng.choice(MOTIONS)
            chosen = combination or rng.choice(choices(held_out, wanted, pairs))
            items = [sample_object(chosen, rng, aspect=aspect)]
        elif count == 2:
            relation, together, items = _two(rng, clip, held_out, aspect)
        elif count == 3 and clip and rng.random() < 0.6:
            together, items = _three(rng, held_out)
        else:
            items = _scattered(rng, count, held_out, aspect)
        possible = backgrounds_for([c for item in items for c in (item.colour, item.becomes) if c])
        if possible:
            break
    name = rng.choice(possible)
    texture = "plain" if rng.random() < 0.6 else rng.choice(TEXTURES[1:])
    rgb = jitter(BACKGROUNDS[name], rng, BACKGROUND_JITTER)
    if varied:
        items = [replace(item, rgb=wide_jitter(item.colour, rng)) for item in items]
    look = sample_look(rng) if varied else PLAIN
    in_turn = any(item.begin > 0 for item in items)
    return Scene(name, tuple(items), rgb, texture, relation, together, in_turn, look)


# -- several objects


def _distinct(rng: random.Random, motions: list[str], held_out: bool) -> list[Combination]:
    """One combination a motion, no colour and no shape twice."""
    while True:
        picked = [rng.choice(choices(held_out, motion, False)) for motion in motions]
        if len({c for c, _, _ in picked}) == len({s for _, s, _ in picked}) == len(picked):
            return picked


def _placed(
    rng: random.Random, combination: Combination, x: float, y: float, radius: float, travel: float
) -> SceneObject:
    """One object of several, at a place that the arrangement gives it."""
    colour, shape, motion = combination
    travel = travel if motion != "still" else 0.0
    return SceneObject(colour, shape, x, y, radius, motion, travel, jitter(COLOURS[colour], rng))


def _two(
    rng: random.Random, clip: bool, held_out: bool, aspect: Aspect
) -> tuple[str, str, list[SceneObject]]:
    """Two objects, with their relation and what they do together."""
    if clip and rng.random() < 0.4:
        together = rng.choice(TOGETHER)
        relation, items = _meeting(rng, together, held_out)
        return relation, together, items
    in_turn = clip and rng.random() < 0.3
    relation, items = _arranged(rng, clip, held_out, aspect, in_turn)
    if in_turn:
        parts = rng.sample((FIRST_PART, LAST_PART), 2)
        items = [replace(item, begin=begin, end=end) for item, (begin, end) in zip(items, parts, strict=True)]
    return relation, "", items


def _arranged(
    rng: random.Random, clip: bool, held_out: bool, aspect: Aspect, both_move: bool = False
) -> tuple[str, list[SceneObject]]:
    """Two objects side by side, one above the other, or one in front of the other, all the time."""
    relation = rng.choice(RELATIONS[:2] if both_move else RELATIONS)
    motions = ["still", "still"]
    if clip and relation != "in front of":
        ways = ("up", "down") if relation == "left of" else ("left", "right")
        motions = [rng.choice(ways if both_move else ("still", *ways)) for _ in range(2)]
    combos = _distinct(rng, motions, held_out)
    if relation == "in front of":
        return relation, _overlapping(rng, combos, aspect)
    items = []
    for place, combination in enumerate(combos):
        radius = rng.uniform(0.12, 0.2)
        travel = rng.uniform(*rng.choice((SLOW, (0.28, 0.46))))
        along = 0.5 + (place - 0.5) * rng.uniform(0.46, 0.56)
        across = between(rng, radius * 1.1 / aspect[relation == "left of"] + travel / 2 + 0.01)
        x, y = (along, across) if relation == "left of" else (across, along)
        items.append(_placed(rng, combination, x, y, radius, travel))
    return relation, items


def _meeting(rng: random.Random, together: str, held_out: bool) -> tuple[str, list[SceneObject]]:
    """Two objects that move apart, towards each other or past each other, along one axis."""
    along_x = rng.random() < 0.5
    onward, back = ("right", "left") if along_x else ("down", "up")
    motions = [back, onward] if together == "apart" else [onward, back]
    combos = _distinct(rng, motions, held_out)
    radii = [rng.uniform(0.1, 0.12) for _ in range(2)]
    if together == "past each other":
        travel = rng.uniform(0.44, 0.56)
        shift = rng.uniform(-0.06, 0.06)
        spots = [(0.5 + shift, 0.5 - side * rng.uniform(0.22, 0.27)) for side in (1, -1)]
        relation = "above" if along_x else "left of"
    else:
        travel = rng.uniform(0.18, 0.2)
        across = rng.uniform(0.3, 0.7)
        spots = [
            (0.5 - side * rng.uniform(0.25, 0.26), across + rng.uniform(-0.04, 0.04)) for side in (1, -1)
        ]
        relation = "left of" if along_x else "above"
    items = []
    for combination, (along, across), radius in zip(combos, spots, radii, strict=True):
        x, y = (along, across) if along_x else (across, along)
        items.append(_placed(rng, combination, x, y, radius, travel))
    return relation, items


def _three(rng: random.Random, held_out: bool) -> tuple[str, list[SceneObject]]:
    """Three objects, each on its own way up, down, left or right, or all apart, or all towards each other."""
    together = rng.choice(("", "", "", "apart", "towards each other"))
    upright = rng.random() < 0.5  # three columns; else three rows
    if together:
        outwards = together == "apart"
        motions = ["left", "up", "right"] if outwards else ["right", "down", "left"]
        combos = _distinct(rng, motions, held_out)
        travel = rng.uniform(0.16, 0.2)
        spots = [(0.27, 0.66), (0.5, 0.3), (0.73, 0.66)]
        return together, [
            _placed(rng, combo, x, y, rng.uniform(0.11, 0.13), travel)
            for combo, (x, y) in zip(combos, spots, strict=True)
        ]
    ways = ("up", "down") if upright else ("left", "right")
    motions = [rng.choice(("still", *ways)) for _ in range(3)]
    if motions == ["still"] * 3:
        motions[rng.randrange(3)] = rng.choice(ways)
    items = []
    for place, combination in enumerate(_distinct(rng, motions, held_out)):
        radius = rng.uniform(0.11, 0.145)
        travel = rng.uniform(0.26, 0.5)
        along = 0.19 + 0.31 * place
        across = between(rng, radius * 1.1 + travel / 2 + 0.01)
        x, y = (along, across) if upright else (across, along)
        items.append(_placed(rng, combination, x, y, radius, travel))
    return "", items


def _overlapping(rng: random.Random, combos: list[Combination], aspect: Aspect) -> list[SceneObject]:
    """The first covers a side of the larger second."""
    radii = rng.uniform(0.14, 0.18), rng.uniform(0.2, 0.25)
    x = rng.uniform(0.42, 0.58)
    y = rng.uniform(0.42, 0.58)
    # the way from the second's centre to the first's: mostly aside
    away = rng.choice((-1, 1)) * rng.uniform(0.85, 1.05) * radii[1] / aspect[0], rng.uniform(-0.08, 0.08)
    return [
        _placed(rng, combination, x + sign * away[0], y + sign * away[1], radius, 0.0)
        for combination, radius, sign in zip(combos, radii, (0.6, -0.4), strict=True)
    ]


def _scattered(rng: random.Random, count: int, held_out: bool, aspect: Aspect) -> list[SceneObject]:
    """Still objects that do not touch."""
    largest = 0.18 if count < 5 else 0.13
    objects: list[SceneObject] = []
    while len(objects) < count:
        # after eighty tries without room for all of them, all over again
        objects = []
        for _ in range(80):
            combo = rng.choice(choices(held_out, "still", False))
            item = sample_object(combo, rng, radius=rng.uniform(largest * 0.67, largest), aspect=aspect)
            if all(_far_apart(item, other, aspect) for other in objects):
                objects.append(item)
            if len(objects) == count:
                break
    return objects


def _far_apart(a: SceneObject, b: SceneObject, aspect: Aspect) -> bool:
    """Whether two objects leave a gap between them."""
    across = (a.x - b.x) * aspect[0]
    down = (a.y - b.y) * aspect[1]
    return across**2 + down**2 > (1.2 * (a.radius + b.radius)) ** 2


def crossing_scene(rng: random.Random, aspect: Aspect = SQUARE) -> Scene:
    """Two or three shapes whose ways cross, so that they cover each other for a while.

    Hard to encode, and not to be described.
    """
    scene = sample_scene(rng, 1, motion="still", aspect=aspect, varied=True)
    while len(scene.objects) < rng.choice((2, 2, 3)):
        motion = rng.choice((*DIRECTIONS, *DIAGONALS))
        item = sample_object(rng.choice(choices(False, motion, False)), rng, rng.uniform(0.1, 0.2), aspect)
        if scene.background in backgrounds_for([item.colour]):
            scene = replace(scene, objects=(*scene.objects, replace(item, travel=max(item.travel, 0.3))))
    return scene
