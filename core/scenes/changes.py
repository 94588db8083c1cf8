"""Two pictures, one a changed copy of the other, and what to say about them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from core.scenes.arrangements import sample_scene
from core.scenes.captions import name, sentence
from core.scenes.rasterizer import BACKGROUND_JITTER, BACKGROUNDS, COLOURS, VISIBLE, jitter
from core.scenes.scene import UNSEEN_PAIRS, Scene, SceneObject, backgrounds_for, is_held_out
from core.scenes.templates import QAPair, fill

KINDS = ("colour", "size", "place", "added", "removed", "background", "nothing")
RESIZED = 1.5  # ratio of radii, at least
MOVED = 0.3  # of the frame, at least


@dataclass(frozen=True)
class Change:
    """Two scenes and the sentence that tells them apart."""

    before: Scene
    after: Scene
    answer: str


def sample_change(rng: random.Random, held_out: bool = False) -> Change:
    """Two square pictures of one to three things, with one change or none.

    Args:
        rng: the only source of chance.
        held_out: combinations that training never uses.
    """
    while True:
        scene = sample_scene(rng, rng.choice((1, 1, 2, 3)), held_out, motion="still", clip=False, varied=True)
        shapes = [item.shape for item in scene.objects]
        if scene.relation == "in front of" or len(set(shapes)) < len(shapes):
            continue
        made = _changed(scene, rng.choice(KINDS), rng, held_out)
        if made:
            return made


def _with(scene: Scene, old: SceneObject, new: SceneObject) -> Scene:
    """The scene with one object in the place of another."""
    return replace(scene, objects=tuple(new if item is old else item for item in scene.objects))


def _changed(scene: Scene, kind: str, rng: random.Random, held_out: bool) -> Change | None:
    """The scene with one change of ``kind``; None where it cannot be made."""
    item = rng.choice(scene.objects)
    if kind == "nothing":
        return Change(scene, scene, "Nothing changed.")
    if kind == "background":
        return _repainted(scene, rng)
    if kind in ("added", "removed"):
        others = tuple(other for other in scene.objects if other is not item)
        fewer = replace(scene, objects=others, relation="")
        if not others:
            return None
        if kind == "added":
            return Change(fewer, scene, sentence(f"{name(item)} is new"))
        return Change(scene, fewer, f"The {item.colour} {item.shape} is gone.")
    if kind == "colour":
        return _recoloured(scene, item, rng, held_out)
    return _resized(scene, item, rng) if kind == "size" else _moved(scene, item, rng)


def _repainted(scene: Scene, rng: random.Random) -> Change | None:
    """Another background that all objects stand out from."""
    visible = backgrounds_for([item.colour for item in scene.objects])
    others = [background for background in visible if background != scene.background]
    if not others:
        return None
    background = rng.choice(others)
    rgb = jitter(BACKGROUNDS[background], rng, BACKGROUND_JITTER)
    after = replace(scene, background=background, background_rgb=rgb)
    return Change(scene, after, f"The background is {background} now.")


def _recoloured(scene: Scene, item: SceneObject, rng: random.Random, held_out: bool) -> Change | None:
    others = [
        colour
        for colour in COLOURS
        if colour not in {other.colour for other in scene.objects}
        and scene.background in VISIBLE[colour]
        and (colour, item.shape) not in UNSEEN_PAIRS
        and is_held_out(colour, item.shape, "still") == held_out
    ]
    if not others:
        return None
    colour = rng.choice(others)
    after = _with(scene, item, replace(item, colour=colour, rgb=jitter(COLOURS[colour], rng)))
    return Change(scene, after, f"The {item.shape} is {colour} now.")


def _resized(scene: Scene, item: SceneObject, rng: random.Random) -> Change | None:
    small = replace(item, radius=item.radius / rng.uniform(RESIZED, 1.9))
    if small.radius < 0.07:
        return None
    less = _with(scene, item, small)
    if rng.random() < 0.5:
        return Change(scene, less, f"The {item.shape} is smaller now.")
    return Change(less, scene, f"The {item.shape} is larger now.")


def _moved(scene: Scene, item: SceneObject, rng: random.Random) -> Change | None:
    """The only object somewhere else, clearly along one axis."""
    if len(scene.objects) > 1:
        return None
    reach = min(0.45, item.radius * 1.1 + 0.01)
    far = rng.choice((-1, 1)) * rng.uniform(MOVED, 0.5)
    little = rng.uniform(-0.05, 0.05)
    across = rng.random() < 0.5
    x, y = (item.x + far, item.y + little) if across else (item.x + little, item.y + far)
    if not (reach < x < 1 - reach and reach < y < 1 - reach):
        return None
    back, onward = ("left", "right") if across else ("up", "down")
    way = onward if far > 0 else back
    after = _with(scene, item, replace(item, x=x, y=y))
    return Change(scene, after, f"The {item.shape} is further {way} now.")


def ask_changed(change: Change, rng: random.Random, held_out: bool = False) -> QAPair:
    """What changed from the first picture to the second."""
    return QAPair("changed", fill("changed", rng, held_out), change.answer, change.answer)
