"""How people write who have never seen this project: chatty, in note form, in roundabout sentences.

Neither training nor the held-out templates use any of it.
A model that is right here has learned what words mean, not what its own questions look like.
"""

from __future__ import annotations

import random

from core.scenes.captions import background_name, goal, listing, name, origin
from core.scenes.scene import Scene, SceneObject
from core.scenes.templates import expand

QUESTIONS: dict[str, tuple[str, ...]] = {
    "colour": (
        "ok so what's the color of {it}",
        "{it}, colour wise?",
        "my kid asks what colour {it} would be",
        "hmm {it} is like which color",
    ),
    "shape": (
        "so {it} is a what exactly",
        "hmm what do you call a thing like {it}",
        "{it}, shape wise?",
        "my kid asks what {it} is supposed to be",
    ),
    "count": (
        "ok count em for me",
        "how many things have we got in total",
        "like how many are in there altogether",
    ),
    "count_of": (
        "ok and {things}, how many have we got",
        "like how many {things} altogether",
        "can u count the {things} for me",
    ),
    "background": (
        "and what about the stuff behind",
        "so what's the bg",
        "the background tho?",
        "what did they paint the back with",
    ),
    "position": (
        "any idea where {it} is at",
        "so whereabouts would {it} be",
        "{it}, which bit of the {medium}",
        "where did they put {it}",
    ),
    "size": (
        "so is {it} a big one or a little one",
        "{it}, big? small?",
        "how large would you say {it} looks",
    ),
    "motion": (
        "so what's {it} up to",
        "and {it} just does what",
        "like what's going on with {it}",
        "which way's {it} going",
    ),
    "speed": ("is {it} going fast or what", "{it}, quick or slow?", "how fast would you say {it} goes"),
    "relation": (
        "so where's {it} if you compare it with {other}",
        "{it}, where is that from {other}",
        "on what side of {other} did they put {it}",
    ),
    "neighbour": (
        "so what's the thing {side} {other}",
        "ok and {side} {other} there's what",
        "what did they put {side} {other}",
    ),
    "caption": (
        "so what have we got here",
        "tell me about this one",
        "what's this {medium} about",
        "go on, describe it",
    ),
    "yes_no": (
        "so have we got {thing} in here or not",
        "do u see {thing} anywhere",
        "there's {thing} in there, isn't there",
    ),
    "yes_no_state": (
        "so {it} is {state}, is it",
        "{it} is {state}, wouldn't you agree",
        "{it}'s {state} isn't it",
    ),
    "why_not": (
        "so why's there no {thing} then",
        "how is it that I see no {thing}",
        "no {thing}, why's that",
    ),
    "which": (
        "ok and which one's {more}",
        "{one} vs {other}, which one is {more}",
        "so who's the {more} one",
    ),
    "either": (
        "so is {it} {a} or is it {b}",
        "{it}, {a} or {b}, what do you say",
        "can't decide: {it} is {a} or {b}",
    ),
    "first": (
        "so what goes on {when}",
        "ok {when} what do we see happening",
        "and {when} there's what going on",
    ),
    "changed": (
        "ok so what's different now",
        "something changed, what is it",
        "first pic vs second pic, what's changed",
    ),
}

DOING = {
    "still": "just sits there",
    "left": "goes over to the left",
    "right": "goes over to the right",
    "up": "goes up",
    "down": "goes down",
    "growing": "gets bigger and bigger",
    "shrinking": "gets smaller and smaller",
    "circling": "goes round in a big circle",
    "bouncing": "bounces around up and down",
    "zigzagging": "goes along in zigzags",
}
PROMPTS = (
    "hey can u make a vid where {subject} {doing}, {background} background pls",
    "{background} bg. {subject}. it {doing}.",
    "so basically there's {subject} and it {doing} and everything behind is {background}",
    "I was thinking of {subject} on something {background}, and then it {doing}",
    "{subject} ({background} background) - it {doing}",
    "my daughter wants to see {subject} that {doing}, with {background} behind it",
)
SHARED = (
    "hey can u make a vid where {subject} {doing}, {background} background pls",
    "so basically there's {subject} and they {doing} and everything behind is {background}",
    "{subject} ({background} background) - they {doing}",
)
SEVERAL = (
    "so {told}, all on {background}",
    "{background} bg: {told}",
    "can u do {told}, {background} behind",
)
BOTH_DO = {
    "apart": "go their own ways, away from each other",
    "towards each other": "come towards each other",
    "past each other": "go past each other",
}


def doing(item: SceneObject) -> str:
    """What an object does, in a stranger's words."""
    if item.motion in DOING:
        return DOING[item.motion]
    if item.motion == "entering":
        return f"comes in from the {origin(item)}"
    if item.motion == "leaving":
        return f"goes out on the {goal(item)}"
    if item.motion == "changing":
        return f"goes {item.becomes}"
    upright, aside = item.motion.split()
    return f"goes {upright} and {aside} at the same time"


def stranger_prompt(scene: Scene, rng: random.Random) -> str:
    """A clip asked for in a stranger's words."""
    items = scene.objects
    where = background_name(scene)
    if scene.together:
        subject = listing([name(item) for item in items])
        return rng.choice(SHARED).format(subject=subject, doing=BOTH_DO[scene.together], background=where)
    if len(items) == 1:
        pace = {"slowly": " real slow", "quickly": " super fast", "": ""}[items[0].speed]
        return rng.choice(PROMPTS).format(
            subject=name(items[0]), doing=doing(items[0]) + pace, background=where
        )
    joint = " and after that " if scene.in_turn else " and "
    order = sorted(items, key=lambda item: item.begin) if scene.in_turn else items
    told = joint.join(f"{name(item)} {doing(item)}" for item in order)
    return rng.choice(SEVERAL).format(told=told, background=where)


def stranger_question(kind: str, rng: random.Random, needs: str = "", **words: str) -> str:
    """A question of ``kind`` in a stranger's words, filled; ``needs``: a placeholder it must have."""
    every = [form for pattern in QUESTIONS[kind] for form in expand(pattern) if needs in form]
    return rng.choice(every).format(**words)
