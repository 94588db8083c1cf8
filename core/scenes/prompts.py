"""How people ask for clips and pictures: templates bent, put in order, filled and mistyped."""

from __future__ import annotations

import random

from core.scenes.captions import article, goal, listing, origin
from core.scenes.motions import DIAGONALS
from core.scenes.prompt_templates import (
    BACKGROUND_WORDS,
    BEFORE_VERBS,
    BEHIND,
    CLAUSES,
    COLOUR_WORDS,
    HELD_CLAUSES,
    HELD_JOINT,
    HELD_PLURAL_CLAUSES,
    JOINTS,
    MOTION_SAYINGS,
    OPENINGS,
    ORDERS,
    PATTERNS,
    PLURAL_CLAUSES,
    RELATION_WORDS,
    SIZES,
    SLANTED,
    SPEEDS,
    TOGETHER_SAYINGS,
)
from core.scenes.scene import Scene, SceneObject
from core.scenes.templates import MEDIA, expand
from core.scenes.typos import roughen

# verbs that double their last letter
DOUBLED = ("get", "run", "hop", "drop", "sit", "spin", "put", "bob", "swap", "slip")


def participle(verb: str) -> str:
    """ "slide left" as "sliding left"."""
    first, _, rest = verb.partition(" ")
    if first.endswith("e") and first not in ("be", "see"):
        first = first[:-1]
    elif first in DOUBLED:
        first += first[-1]
    return f"{first}ing {rest}".strip()


def third_person(verb: str) -> str:
    """ "go left" as "goes left"."""
    first, _, rest = verb.partition(" ")
    if first.endswith(("s", "sh", "ch", "x", "o")):
        first += "es"
    elif first.endswith("y") and first[-2] not in "aeiou":
        first = f"{first[:-1]}ies"
    else:
        first += "s"
    return f"{first} {rest}".strip()


def saying(item: SceneObject, rng: random.Random, held_out: bool = False) -> str:
    """What an object does, as a bare verb in one of many ways: "drift to the left"."""
    if item.motion in DIAGONALS:
        up, to = item.motion.split()
        template = SLANTED.pick(rng, held_out)
        top = rng.choice(("top", "upper"))
        return template.format(up=up, to=to, end=top if up == "up" else "bottom")
    words = {"to": item.motion}
    if item.heading:
        words = {"to": goal(item), "from": origin(item)}
    return MOTION_SAYINGS[item.motion].pick(rng, held_out).format(**words, now=item.colour, then=item.becomes)


def naming(item: SceneObject, rng: random.Random, held_out: bool = False, size: bool = False) -> str:
    """An object in one of many words: "a little violet circle"; ``size``: whether its size is named."""
    colour = rng.choice(COLOUR_WORDS.get(item.colour, (item.colour,)))
    words = [SIZES[item.size].pick(rng, held_out)] if size and item.size else []
    words += [colour, item.shape]
    return f"{article(words[0])} {' '.join(words)}"


def background_phrase(scene: Scene, rng: random.Random) -> str:
    """The background in one of many words: "striped dark blue"."""
    colour = rng.choice(BACKGROUND_WORDS.get(scene.background, (scene.background,)))
    return colour if scene.texture == "plain" else f"{scene.texture} {colour}"


def _clause(item: SceneObject, rng: random.Random, held_out: bool, sized: bool, paced: bool) -> str:
    """One object and what it does."""
    named = naming(item, rng, held_out, sized)
    if item.motion == "still" and rng.random() < 0.5:
        return named
    verb = saying(item, rng, held_out)
    ing = participle(verb)
    does = third_person(verb)
    if paced and item.speed:
        pace = SPEEDS[item.speed].pick(rng, held_out)
        before = rng.random() < 0.5 and pace in BEFORE_VERBS
        ing, does = (f"{pace} {words}" if before else f"{words} {pace}" for words in (ing, does))
    clause = rng.choice(HELD_CLAUSES if held_out and rng.random() < 0.4 else CLAUSES)
    return rng.choice(expand(clause)).format(n=named, ing=ing, s=does)


def _things(scene: Scene, rng: random.Random, clip: bool, held_out: bool, sized: bool, paced: bool) -> str:
    """All objects and what they do, without the background.

    Args:
        clip: whether motion is asked for.
        sized, paced: whether sizes and speeds are named.
    """
    items = list(scene.objects)
    if scene.together and clip:
        return _together(scene, rng, held_out, sized)
    if scene.in_turn and clip:
        return _in_turn(scene, rng, held_out, sized)
    moving = clip and any(item.motion != "still" for item in items)
    if len(items) != 2:
        if len(items) > 2 and not moving:
            items.sort(key=lambda item: item.x)
        parts = [
            _clause(item, rng, held_out, sized, paced) if moving else naming(item, rng, held_out, sized)
            for item in items
        ]
        return listing(parts).rstrip(",")
    sides = RELATION_WORDS.get(scene.relation, (scene.relation,))
    side = sides[0 if rng.random() < 0.7 else -1]
    if not moving:
        return f"{naming(items[0], rng, held_out, sized)} {side} {naming(items[1], rng, held_out, sized)}"
    one, other = (_clause(item, rng, held_out, sized, paced).rstrip(",") for item in items)
    return f"{one}, {side} {other}" if rng.random() < 0.7 else f"{one} and {other}"


def _together(scene: Scene, rng: random.Random, held_out: bool, sized: bool) -> str:
    """Objects that move apart, towards or past each other."""
    items = list(scene.objects)
    verb = TOGETHER_SAYINGS[scene.together].pick(rng, held_out)
    clause = rng.choice(HELD_PLURAL_CLAUSES if held_out and rng.random() < 0.4 else PLURAL_CLAUSES)
    if rng.random() < 0.3:
        rng.shuffle(items)
    named = listing([naming(item, rng, held_out, sized) for item in items])
    return rng.choice(expand(clause)).format(n=named, ing=participle(verb), do=verb)


def _in_turn(scene: Scene, rng: random.Random, held_out: bool, sized: bool) -> str:
    """Two objects that move one after the other."""
    joint = HELD_JOINT if held_out and rng.random() < 0.5 else rng.choice(JOINTS)
    order = sorted(scene.objects, key=lambda item: item.begin)
    one, other = (_clause(item, rng, held_out, sized, paced=False).rstrip(",") for item in order)
    return f"{one} {joint} {other}".replace(" ,", ",")


def _with_background(said: str, scene: Scene, rng: random.Random, held_out: bool) -> str:
    """What is said about the objects, with the background before or after it."""
    b = background_phrase(scene, rng)
    a = f"{article(b)} {b}"
    behind = BEHIND.pick(rng, held_out).format(a=a, b=b)
    if scene.texture != "plain" and rng.random() < 0.25:
        colour = b.removeprefix(f"{scene.texture} ")
        pattern = rng.choice(expand(PATTERNS[scene.texture]))
        behind = f"on {article(colour)} {colour} background with {pattern}"
    order = ORDERS.pick(rng, held_out and rng.random() < 0.5)
    return order.format(s=said, behind=behind, a=a, b=b)


def prompt(scene: Scene, rng: random.Random, clip: bool, held_out: bool = False) -> str:
    """A generation prompt in one of many wordings, with the slips of a keyboard.

    Now and then it leaves the background open.

    Args:
        clip: whether motion is asked for.
        held_out: in words that training never uses.
    """
    said = _things(scene, rng, clip, held_out, rng.random() < 0.35, rng.random() < 0.7)
    if rng.random() < 0.92:
        said = _with_background(said, scene, rng, held_out)
    # "a video of on a navy background, ..." nobody says
    opens = said.startswith(("a ", "an ")) and rng.random() < (0.5 if clip else 0.75)
    opening = OPENINGS.pick(rng, held_out) if opens else "{it}"
    text = opening.format(it=said, medium=rng.choice(MEDIA[clip]))
    return roughen(" ".join(text.replace(",,", ",").split()), rng)
