"""Names of things that the model does not know: it is to say that it does not see them."""

from __future__ import annotations

import random
from functools import lru_cache

# nothing the model knows; every fifth is kept out of training
OUT_OF_DOMAIN_NOUNS = (
    "dog", "cat", "house", "tree", "car", "person", "bird", "fish", "table", "chair", "boat", "flower",
    "book", "cup", "phone", "horse", "sun", "moon", "cloud", "train", "apple", "banana", "ball", "hat",
    "shoe", "door", "window", "man", "woman", "child", "plane", "bike", "bus", "road", "river", "mountain",
    "letter", "number", "word", "face", "baby", "cow", "pig", "sheep", "duck", "bear", "lion", "mouse",
    "rabbit", "snake", "frog", "bee", "spider", "egg", "bread", "cake", "pizza", "lemon", "carrot", "potato",
    "glass", "bottle", "plate", "fork", "knife", "spoon", "bed", "sofa", "lamp", "clock", "mirror", "bag",
    "box", "key", "pen", "paper", "computer", "screen", "camera", "guitar", "piano", "drum", "robot",
    "rocket", "ship", "truck", "bridge", "tower", "castle", "church", "school", "street", "garden", "beach",
    "sea", "lake", "island", "forest", "grass", "leaf", "stone", "fire", "snow", "rain", "hand", "foot",
    "eye", "nose", "mouth", "hair", "shirt", "coat", "dress", "sock", "coin", "flag", "map", "toy", "kite",
    "balloon", "candle", "umbrella", "ladder", "rope", "wheel", "hexagon", "pentagon", "cube", "cylinder",
    "cross", "arrow", "diamond", "oval", "rectangle", "line", "dot", "spiral",
)  # fmt: skip

BEGINNINGS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "br", "cl", "fl", "gr")
ENDINGS = ("b", "d", "k", "l", "m", "n", "st")


def _nonce_words() -> tuple[str, ...]:
    """Words of two or three syllables that mean nothing, at most three hundred."""
    rng = random.Random(0)

    def word() -> str:
        syllables = (rng.choice(BEGINNINGS) + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3))))
        return "".join(syllables) + rng.choice(ENDINGS)

    made = dict.fromkeys(word() for _ in range(300))
    return tuple(word for word in made if word not in OUT_OF_DOMAIN_NOUNS)


NONCE_WORDS = _nonce_words()


@lru_cache(maxsize=2)
def out_of_domain_nouns(held_out: bool) -> tuple[str, ...]:
    """Names of things the model has never seen, on one side of the split.

    For training also nonce words: any unknown word is to be refused.
    """
    real = [word for place, word in enumerate(OUT_OF_DOMAIN_NOUNS) if (place % 5 == 4) == held_out]
    return (*real, *(() if held_out else NONCE_WORDS))
