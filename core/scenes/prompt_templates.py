"""What people say who ask for clips and pictures: many verbs for every motion, many orders of words.

Expressions, orders and openings that stand under ``held`` are never used in training.
They are other words for the same, not other fillings of the same templates.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from core.scenes.templates import expand


@dataclass(frozen=True)
class Sayings:
    """Ways of saying one thing, as patterns of :func:`core.scenes.templates.expand`.

    Of a verb the first word is bent: "move left" becomes "moves left" and "moving left".
    """

    training: tuple[str, ...]
    held: tuple[str, ...]

    def pick(self, rng: random.Random, held_out: bool) -> str:
        """One of those for training, or one that is held out."""
        return rng.choice(expand(rng.choice(self.held if held_out else self.training)))


# {to}: where it goes, {from}: where it comes from, {now}: its colour, {then}: the colour it turns to
MOTION_SAYINGS: dict[str, Sayings] = {
    "still": Sayings(
        (
            "stay still",
            "stand still",
            "stay in place",
            "rest",
            "sit still",
            "stay where it is",
            "stand in place",
            "keep still",
        ),
        ("stay put", "hold still", "remain in place", "remain motionless"),
    ),
    "left": Sayings(
        (
            "(move|go|slide|drift|glide|travel|shift|float|fly) {to}",
            "(move|go|slide|drift|glide|travel|shift|float) to the {to}",
            "(move|go|slide|travel) from (the |)right to left",
            "(move|head) towards the {to}",
        ),
        (
            "(travel|roll) {to}wards",
            "make its way {to}",
            "cross the (frame|screen) to the {to}",
            "wander to the {to} side",
        ),
    ),
    "up": Sayings(
        (
            "(move|go|slide|drift|float|fly|glide) (up|upwards|upward)",
            "(rise|climb|ascend)",
            "(rise|float|move|go) to the top",
            "(move|go|slide) from (the |)bottom to (the |)top",
        ),
        ("(travel|soar|lift) upwards", "lift off", "head skywards", "make its way up"),
    ),
    "down": Sayings(
        (
            "(move|go|slide|drift|float|glide|fall) (down|downwards|downward)",
            "(fall|sink|drop|descend)",
            "(fall|sink|move|go) to the bottom",
            "(move|go|slide) from (the |)top to (the |)bottom",
        ),
        ("(travel|tumble|come) down", "plunge", "head for the floor", "make its way down"),
    ),
    "growing": Sayings(
        (
            "grow",
            "(get|become|grow) (bigger|larger)",
            "expand",
            "increase in size",
            "enlarge",
            "swell",
            "get (big|large)",
            "grow in size",
        ),
        ("inflate", "gain in size", "scale up", "turn into a giant", "blow up like a balloon"),
    ),
    "shrinking": Sayings(
        (
            "shrink",
            "(get|become|grow) (smaller|tinier)",
            "contract",
            "decrease in size",
            "get (small|tiny)",
            "shrink in size",
            "dwindle",
        ),
        ("deflate", "lose size", "scale down", "get less and less big"),
    ),
    "entering": Sayings(
        (
            "(enter|come in|move in|slide in|fly in|come|appear|float in) from the {from}",
            "enter the (picture|frame|scene) from the {from}",
            "(come|move) into view from the {from}",
            "(enter|come in) (on|at) the {from}",
        ),
        (
            "(arrive|show up|turn up) from the {from}",
            "drift into the (frame|shot) from the {from}",
            "join from the {from}",
        ),
    ),
    "leaving": Sayings(
        (
            "(leave|go out|move out|slide out|exit|disappear|fly out|float out) to the {to}",
            "leave the (picture|frame|scene) to the {to}",
            "(go|move) out of view to the {to}",
            "(leave|exit) (on|at) the {to}",
        ),
        (
            "(vanish|depart|go away) to the {to}",
            "drift out of (shot|the frame) to the {to}",
            "take off to the {to}",
        ),
    ),
    "circling": Sayings(
        (
            "(move|go|fly|travel|run) in a circle",
            "(move|go|fly) (around|round) in (a circle|circles)",
            "circle",
            "(go|move) round and round",
            "orbit",
            "make a circle",
        ),
        ("revolve", "do a full loop", "follow a circular path", "run a lap"),
    ),
    "bouncing": Sayings(
        (
            "bounce",
            "bounce up and down",
            "(jump|hop)",
            "(jump|hop) up and down",
            "bounce like a ball",
            "keep bouncing",
            "bounce on the floor",
        ),
        ("bob up and down", "(leap|spring) up and down", "go boing boing"),
    ),
    "zigzagging": Sayings(
        (
            "(move|go|fly|travel|run) in (a zigzag|zigzags)",
            "zigzag",
            "(follow|take) a zigzag path",
            "zigzag across the (picture|frame)",
            "(move|go) along a zigzag",
        ),
        ("weave from side to side", "take a jagged route", "go hither and thither"),
    ),
    "changing": Sayings(
        (
            "(turn|become|change to|turn to|go) {then}",
            "(turn|change) from {now} to {then}",
            "change (colour|color|its colour|its color) to {then}",
            "(turn|fade) into {then}",
            "change (colour|color) from {now} to {then}",
        ),
        ("switch to {then}", "morph from {now} into {then}", "take on a {then} tint", "end up {then}"),
    ),
}
MOTION_SAYINGS["right"] = Sayings(
    tuple(p.replace("(the |)right to left", "(the |)left to right") for p in MOTION_SAYINGS["left"].training),
    MOTION_SAYINGS["left"].held,
)
SLANTED = Sayings(
    (
        "(move|go|slide|fly|drift|travel) diagonally {up} and to the {to}",
        "(move|go|slide|fly|drift) {up} and to the {to}",
        "(move|go|slide|fly) (diagonally |){up} {to}",
        "(move|go|fly|drift) (to|towards) the {end} {to}",
        "(move|go|fly) to the {end} {to} corner",
        "(move|go) diagonally to the {end} {to}",
    ),
    (
        "(travel|head) for the {end} {to}",
        "make its way {up} and {to}wards",
        "cross the frame slantwise, {up} and to the {to}",
    ),
)
TOGETHER_SAYINGS: dict[str, Sayings] = {
    "apart": Sayings(
        (
            "(move|go|drift|slide|fly|float) apart",
            "(move|go|drift) away from each other",
            "separate",
            "get farther apart",
        ),
        ("part ways", "spread out", "distance themselves", "put space between them"),
    ),
    "towards each other": Sayings(
        (
            "(move|go|drift|slide|fly|float) (towards|toward|to) each other",
            "(move|come|go|get) (together|closer|closer together)",
            "approach each other",
            "(come|move) closer to each other",
        ),
        ("close in on each other", "draw near to one another", "meet in the middle"),
    ),
    "past each other": Sayings(
        (
            "(move|go|slide|drift|fly) (past|by) each other",
            "pass each other",
            "pass by each other",
            "cross each other",
        ),
        ("slip past one another", "trade sides", "swap places"),
    ),
}
SLOWLY = Sayings(
    ("slowly", "very slowly", "gently", "at a slow pace"), ("unhurriedly", "in slow motion", "at a crawl")
)
QUICKLY = Sayings(
    ("quickly", "fast", "rapidly", "very fast", "at high speed", "very quickly"),
    ("swiftly", "in a hurry", "at full speed"),
)
SPEEDS = {"slowly": SLOWLY, "quickly": QUICKLY}
# these may stand before a verb as well as behind it
BEFORE_VERBS = ("slowly", "quickly", "rapidly", "gently", "swiftly", "unhurriedly")
JOINTS = (", then", ", and then", "and then", ", after that")  # between what moves first and what moves then
HELD_JOINT = "before"
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "above": ("above", "over"),
    "in front of": ("in front of", "before"),
}
SIZES = {
    "small": Sayings(("small", "little", "tiny"), ("mini", "teeny")),
    "big": Sayings(("big", "large", "huge"), ("giant", "enormous")),
}
BACKGROUND_WORDS = {
    "navy": ("navy", "navy", "dark blue", "navy blue"),
    "gray": ("gray", "gray", "grey"),
    "light blue": ("light blue", "light blue", "pale blue", "sky blue"),
    "green": ("green", "green", "dark green"),
    "purple": ("purple", "purple", "violet", "dark purple"),
}
COLOUR_WORDS = {"purple": ("purple", "purple", "violet")}
PATTERNS = {
    "striped": "(stripes|a striped pattern)",
    "checkered": "(checks|squares|a checkered pattern)",
    "dotted": "(dots|a dotted pattern)",
    "gradient": "a gradient",
    "gridded": "(a grid|grid lines)",
}
# {s}: the sentence about the things, {b}: the background's words without an article, {a}: with one
BEHIND = Sayings(
    ("(on|against|in front of|with|over) {a} background", "on {b}", "on {a} background", "on {a} background"),
    ("(before|against) {a} backdrop", "upon {b}", "set against {b}"),
)
ORDERS = Sayings(
    (
        "{s} {behind}",
        "{s} {behind}",
        "{s} {behind}",
        "{b} background, {s}",
        "{behind}, {s}",
        "{s}, {b} background",
        "{s}. The background is {b}.",
    ),
    (
        "{b} backdrop: {s}",
        "background {b}; {s}",
        "{s}, everything else {b}",
        "picture {a} background and {s}",
    ),
)
CLAUSES = ("{n} {ing}", "{n} {ing}", "{n} (that|which) {s}", "{n} {s}", "{n}, {ing},")
HELD_CLAUSES = ("{n} as it {s}", "{n} seen {ing}", "{n} while it {s}")
PLURAL_CLAUSES = ("{n} {ing}", "{n} {ing}", "{n} (that|which) {do}", "{n} {do}")
HELD_PLURAL_CLAUSES = ("{n} as they {do}", "{n} seen {ing}", "{n} while they {do}")
OPENINGS = Sayings(
    (
        "{it}",
        "{it}",
        "{it}",
        "(a|the) ({medium}|drawing) of {it}",
        "(show|draw|make|give) me {it}",
        "(please draw|please show|please make|I want to see|I would like) {it}",
        "(make|draw|create|generate|show) (a {medium} of|a new {medium} of|) {it}",
        "(can|could) you (show|draw|make) {it}?",
        "(draw|animate|create|show) {it}(, please| please|)",
        "{medium} of {it}",
        "I want (a {medium} of |){it}",
        "(a short|a simple|a small) {medium} of {it}",
        "{medium}: {it}",
    ),
    (
        "let's have {it}",
        "how about {it}?",
        "{it} would be nice",
        "imagine {it}",
        "your task: {it}",
        "I'd love {it}",
    ),
)
