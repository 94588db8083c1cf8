"""How templates become questions.

A pattern stands for many variants: ``(a|b)`` is one of its alternatives, ``{it}`` what the question is about.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache

from core.scenes.held_templates import ASK_HELD_OUT
from core.scenes.training_templates import ASK


@dataclass(frozen=True)
class QAPair:
    """One question and its answer; ``key`` holds the words that decide whether an answer is right."""

    kind: str
    question: str
    answer: str
    key: str


OPENINGS = ("And ", "Also, ", "OK. ", "Thanks. ", "Good. ", "Now, ", "")  # of a dialogue's later questions
# the same question about another object
AND_THAT = (
    "And {it}?",
    "What about {it}?",
    "How about {it}?",
    "And what about {it}?",
    "And now {it}?",
    "OK, and {it}?",
    "{it}?",
)
MEDIA = {False: ("picture", "image", "photo"), True: ("video", "clip")}


def expand(pattern: str) -> list[str]:
    """All variants of a pattern; a group that begins with a space may be left out: ``Where( here) is``."""
    found = re.search(r"\(([^()]*)\)", pattern)
    if not found:
        return [pattern]
    choices = found.group(1).split("|")
    if choices[0].startswith(" "):
        choices.append("")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [variant for choice in choices for variant in expand(before + choice + after)]


@lru_cache(maxsize=256)
def variants(kind: str, held_out: bool, needs: str = "") -> tuple[str, ...]:
    """The variants of a question on one side of the split; ``needs``: only those with this placeholder."""
    patterns = (ASK_HELD_OUT if held_out else ASK)[kind]
    every = [variant for pattern in patterns for variant in expand(pattern)]
    return tuple(" ".join(variant.split()) for variant in every if needs in variant)


def fill(kind: str, rng: random.Random, held_out: bool = False, needs: str = "", **words: str) -> str:
    """One question of ``kind`` with its placeholders filled and a capital in front."""
    text = rng.choice(variants(kind, held_out, needs)).format(**words).replace(" it's ", " its ")
    return f"{text[0].upper()}{text[1:]}"


def follow_up(question: str, rng: random.Random) -> str:
    """A question as it stands later in a dialogue."""
    opening = rng.choice(OPENINGS)
    keeps = opening.endswith(". ") or not opening
    return f"{opening}{question if keeps else question[0].lower() + question[1:]}"
