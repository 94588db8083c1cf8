"""How people ask: at least twenty forms of every question, one in six of them kept out of training.

A pattern stands for many forms: ``(a|b)`` is one of its alternatives, ``{it}`` what the question is about.
"""

from __future__ import annotations

import random
import re
import zlib
from functools import lru_cache

ASK: dict[str, tuple[str, ...]] = {
    "colour": (
        "(What|Which) (colour|color) is {it}?",
        "(What|Which) (colour|color) does {it} have?",
        "(Tell me|Name|Say) the (colour|color) of {it}.",
        "What is the (colour|color) of {it}?",
        "(Can you tell me|Do you know) (what|which) (colour|color) {it} (is|has)?",
    ),
    "shape": (
        "(What|Which) shape is {it}?",
        "What kind of shape is {it}?",
        "(What|Which) (shape|form) does {it} have?",
        "(Tell me|Name|Say) the shape of {it}.",
        "What is the (shape|form) of {it}?",
        "(Can you tell me|Do you know) (what|which) shape {it} (is|has)?",
        "What is {it}?",
    ),
    "count": (
        "How many (shapes|objects|things) (are there|do you see|can you see|are in the {medium}|does the {medium} show)?",
        "How many (shapes|objects|things) are (there in|shown in) the {medium}?",
        "Count the (shapes|objects|things).",
        "What is the number of (shapes|objects|things)?",
    ),
    "background": (
        "(What|Which) (colour|color) is the background?",
        "(What|Which) (colour|color) does the background have?",
        "What is the (colour|color) of the background?",
        "What is the background( like)?",
        "What does the background look like?",
        "(What|Which) background (is there|do you see|does the {medium} have)?",
        "(Describe|Name|Tell me) the background.",
        "(Can you tell me|Do you know) what the background is( like)?",
    ),
    "position": (
        "Where( in the {medium}) is {it}?",
        "(In|At) (which|what) (part|place|area) of the {medium} is {it}?",
        "What is the (position|place|location) of {it}?",
        "Where (do|can) you see {it}?",
        "(Tell me|Say) where {it} is.",
        "(Can you tell me|Do you know) where {it} is?",
    ),
    "size": (
        "Is {it} (big or small|small or big|large or small|a big or a small one)?",
        "How (big|large) is {it}?",
        "What size (is|has) {it}?",
        "(What|Which) size does {it} have?",
        "What is the size of {it}?",
        "(Tell me|Say) how (big|large) {it} is.",
        "(Can you tell me|Do you know) how (big|large) {it} is?",
        "Does {it} look (big or small|large or small)?",
        "Of (what|which) size is {it}?",
    ),
    "motion": (
        "(How|Where|Which way) does {it} move?",
        "(How|Where|Which way) is {it} moving?",
        "What does {it} do?",
        "What is {it} doing?",
        "What happens( to {it})?",
        "What is the (motion|movement) of {it}?",
        "In (which|what) direction does {it} (move|go)?",
        "(Describe|Tell me) the (motion|movement) of {it}.",
        "(Can you tell me|Do you know) (how {it} moves|what {it} does)?",
    ),
    "speed": (
        "(How fast|At what speed) does {it} (move|go)?",
        "How (fast|quick) is {it}( moving)?",
        "Is {it} (fast or slow|slow or fast|quick or slow)?",
        "Does {it} move (slowly or quickly|quickly or slowly|fast or slowly)?",
        "What is the speed of {it}?",
        "(Tell me|Say) (how fast {it} moves|how fast {it} is|the speed of {it}).",
        "(Can you tell me|Do you know) how fast {it} (is|moves)?",
    ),
    "relation": (
        "Where is {it} (relative to|compared to|with respect to|seen from) {other}?",
        "What is the (position|place|location) of {it} (relative to|compared to|with respect to) {other}?",
        "(Tell me|Say) where {it} is (relative to|compared to|seen from) {other}.",
        "(Can you tell me|Do you know) where {it} is (relative to|seen from) {other}?",
    ),
    "neighbour": (
        "What (is|stands|do you see|can you see) {side} {other}?",
        "(Which|What) (shape|object|thing) (is|stands) {side} {other}?",
        "(Tell me|Say) what (is|stands) {side} {other}.",
        "(Can you tell me|Do you know) what (is|stands) {side} {other}?",
    ),
    "caption": (
        "Describe (the {medium}|this {medium}|what you see|it).",
        "Please describe (the|this) {medium}.",
        "(Can|Could) you describe (the|this) {medium}?",
        "What (is|do you see|can you see) in (the|this) {medium}?",
        "What do you see?",
        "What is (this|that|shown here)?",
        "What does (the|this) {medium} show?",
        "What (happens|is going on) in the {medium}?",
        "(Tell me|Say) what (you see|is there|this is).",
    ),
    "yes_no": (
        "Is there {thing}( in the {medium}| here)?",
        "(Do|Can) you see {thing}( in the {medium}| here)?",
        "Does the {medium} (show|have|contain) {thing}?",
        "Is {thing} (in the {medium}|there|shown|visible)?",
        "(Tell me|Say) (if|whether) there is {thing}.",
    ),
    "yes_no_state": (
        "Is {it} {state}?",
        "(Would|Could) you say {it} is {state}?",
        "(Do|Can) you see {it} {state}?",
        "(Tell me|Say) (if|whether) {it} is {state}.",
        "(Can you tell me|Do you know) (if|whether) {it} is {state}?",
        "Is it true that {it} is {state}?",
        "Is {it} {state} (here|in the {medium})?",
        "{it} is {state}, (right|is that so|is that right|yes or no)?",
        "Is {it} {state}, (yes or no|or not)?",
    ),
}
OPENINGS = ("And ", "Also, ", "OK. ", "Thanks. ", "Good. ", "Now, ", "")  # of a talk's second question
MEDIA = {False: ("picture", "image", "photo"), True: ("video", "clip")}

# what a prompt may begin and end with; the caption stands between
PROMPTS: tuple[str, ...] = (
    "{it}",
    "(A|The) ({medium}|drawing) of {it}",
    "(Show|Draw|Make|Give) me {it}",
    "(Please draw|I want to see|I would like) {it}",
    "(Make|Draw|Create|Generate) (a {medium} of|a new {medium} of) {it}",
    "(Can|Could) you (show|draw|make) {it}?",
    "(Draw|Animate|Create) {it}, please",
)

# nothing the model knows; every fifth is kept out of training
FOREIGN = (
    "dog", "cat", "house", "tree", "car", "person", "bird", "fish", "table", "chair", "boat", "flower", "book", "cup",
    "phone", "horse", "sun", "moon", "cloud", "train", "apple", "banana", "ball", "hat", "shoe", "door", "window", "man",
    "woman", "child", "plane", "bike", "bus", "road", "river", "mountain", "letter", "number", "word", "face", "baby",
    "cow", "pig", "sheep", "duck", "bear", "lion", "mouse", "rabbit", "snake", "frog", "bee", "spider", "egg", "bread",
    "cake", "pizza", "lemon", "carrot", "potato", "glass", "bottle", "plate", "fork", "knife", "spoon", "bed", "sofa",
    "lamp", "clock", "mirror", "bag", "box", "key", "pen", "paper", "computer", "screen", "camera", "guitar", "piano",
    "drum", "robot", "rocket", "ship", "truck", "bridge", "tower", "castle", "church", "school", "street", "garden",
    "beach", "sea", "lake", "island", "forest", "grass", "leaf", "stone", "fire", "snow", "rain", "hand", "foot", "eye",
    "nose", "mouth", "hair", "shirt", "coat", "dress", "sock", "coin", "flag", "map", "toy", "kite",
    "balloon", "candle", "umbrella", "ladder", "rope", "wheel", "hexagon", "pentagon", "cube", "cylinder", "cross",
    "arrow", "diamond", "oval", "rectangle", "line", "dot", "spiral",
)  # fmt: skip

BEGINNINGS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "br", "cl", "fl", "gr")
ENDINGS = ("b", "d", "k", "l", "m", "n", "st")


def _made_up(count: int = 300) -> tuple[str, ...]:
    """Words of two or three syllables that mean nothing."""
    rng = random.Random(0)

    def word() -> str:
        syllables = (rng.choice(BEGINNINGS) + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3))))
        return "".join(syllables) + rng.choice(ENDINGS)

    return tuple(word for word in dict.fromkeys(word() for _ in range(count)) if word not in FOREIGN)


MADE_UP = _made_up()


def expand(pattern: str) -> list[str]:
    """All forms of a pattern; an alternative group that begins with a space may be left out: ``Where( here) is``."""
    found = re.search(r"\(([^()]*)\)", pattern)
    if not found:
        return [pattern]
    choices = found.group(1).split("|")
    if choices[0].startswith(" "):
        choices.append("")
    return [form for choice in choices for form in expand(pattern[: found.start()] + choice + pattern[found.end() :])]


def is_held_out_form(form: str) -> bool:
    """Whether a form is kept out of training: one in six, by its letters."""
    return zlib.crc32(form.encode()) % 6 == 0


@lru_cache(maxsize=256)
def forms(kind: str, held_out: bool, needs: str = "") -> tuple[str, ...]:
    """The forms of a question on one side of the split; ``needs``: only those with this placeholder."""
    patterns = PROMPTS if kind == "prompt" else ASK[kind]
    every = [form for pattern in patterns for form in expand(pattern)]
    plain = {"{it}"}  # the plainest prompt is on both sides
    return tuple(f for f in every if needs in f and (is_held_out_form(f) == held_out or f in plain))


@lru_cache(maxsize=2)
def foreign(held_out: bool) -> tuple[str, ...]:
    """Names of things the model has never seen. For training also made-up ones: any unknown word is to be refused."""
    real = [word for place, word in enumerate(FOREIGN) if (place % 5 == 4) == held_out]
    return (*real, *(() if held_out else MADE_UP))


def phrase(kind: str, rng: random.Random, held_out: bool = False, needs: str = "", **words: str) -> str:
    """One question of ``kind`` with its placeholders filled and a capital in front."""
    text = rng.choice(forms(kind, held_out, needs)).format(**words)
    return f"{text[0].upper()}{text[1:]}"


def follow_up(question: str, rng: random.Random) -> str:
    """A question as it stands later in a talk."""
    opening = rng.choice(OPENINGS)
    keeps = opening.endswith(". ") or not opening
    return f"{opening}{question if keeps else question[0].lower() + question[1:]}"
