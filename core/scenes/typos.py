"""Texts as people type them."""

from __future__ import annotations

import random
import re


def _mistyped(text: str, rng: random.Random) -> str:
    """One letter of one longer word dropped, doubled or exchanged with its neighbour."""
    words = text.split(" ")
    longer = [place for place, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not longer:
        return text
    place = rng.choice(longer)
    word = words[place]
    at = rng.randrange(1, len(word) - 1)
    slip = rng.choice(("drop", "double", "exchange"))
    if slip == "exchange":
        words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    else:
        words[place] = word[:at] + (word[at] * 2 if slip == "double" else "") + word[at + 1 :]
    return " ".join(words)


def roughen(text: str, rng: random.Random, amount: float = 1.0) -> str:
    """A text as people type it, with their slips.

    A capital in front or none, all in lower case, now and then all in capitals.
    Articles left out, a letter wrong, with a full stop or without.

    Args:
        amount: how often, from 0 for never to 1.
    """
    draw = rng.random
    if draw() < 0.12 * amount:
        text = re.sub(r"\b(a|an|the) ", "", text)
    if draw() < 0.06 * amount:
        text = _mistyped(text, rng)
    case = draw()
    if case < 0.25 * amount:
        text = text.lower()
    elif case < 0.28 * amount:
        text = text.upper()
    elif case < 0.6:
        text = f"{text[:1].upper()}{text[1:]}"
    if draw() < 0.2 * amount:
        text = text.rstrip("?.")
    elif draw() < 0.2 * amount and not text.endswith(("?", ".")):
        text += "."
    return text
