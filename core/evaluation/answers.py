"""Answers about scenes against the truth; by default held-out scenes, asked about in held-out words."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import numpy as np
from PIL import Image

from core.evaluation.clips import Scores, scores
from core.evaluation.strangers import stranger_question
from core.pipelines import HaploOmni
from core.scenes.arrangements import sample_scene
from core.scenes.changes import ask_changed, sample_change
from core.scenes.motions import PICTURE_MOTIONS
from core.scenes.questions import QuestionSampler, kinds_for
from core.scenes.rasterizer import augment
from core.scenes.scene import COUNT_WORDS, Scene, aspect_of, render
from core.scenes.small_talk import SMALL_TALK
from core.scenes.templates import QAPair, follow_up

ABOUT_ONE = (
    "colour", "shape", "background", "position", "size", "caption", "refusal", "yes_no", "either", "why_not",
)  # fmt: skip
ABOUT_CLIPS = ("motion", "speed", "first")
ABOUT_TWO = ("relation", "neighbour", "which")
ABOUT_MANY = ("count", "count_of")
TURNS = {"two_turn": 2, "three_turn": 3}
KINDS = (*ABOUT_ONE, *ABOUT_CLIPS, *ABOUT_TWO, *ABOUT_MANY, *TURNS, "changed", "small_talk")
STILL_KINDS = ("position", "size", *ABOUT_MANY, "changed")  # asked of pictures only
PICTURE_SIDE = 168  # drawn larger than a tile, so that resizing is part of the test
NARROWEST = 80  # pixels of a picture's shorter side
# words that mean the same, and words that say nothing
SYNONYMS = {
    "larger": "bigger", "big": "large huge", "small": "little tiny", "gray": "grey", "purple": "violet",
    "center": "middle centre", "fast": "quickly rapidly", "slowly": "slow", "up": "upwards upward",
    "down": "downwards downward", "below": "beneath under", "faster": "quicker", "circle": "disc",
    "yes": "yeah yep", "no": "nope",
}  # fmt: skip
SAME = {word: meant for meant, words in SYNONYMS.items() for word in words.split()} | {
    str(number): word for number, word in enumerate(COUNT_WORDS)
}
PHRASES = {
    "do not": "don't",
    "dark blue": "navy",
    "to the left of": "left of",
    "to the right of": "right of",
    "on top of": "above",
}
FILLERS = frozenset((
    "it", "is", "it's", "at", "the", "on", "in", "to", "a", "an", "there", "are",
    "shape", "shapes", "there's", "here", "that", "this",
))  # fmt: skip

Media = list[dict]  # parts of a message
Dialogue = list[QAPair]


def meaning(answer: str) -> list[str]:
    """An answer's words without those that say nothing, synonyms replaced by one of them."""
    text = re.sub(r"[^a-z0-9' ]", " ", answer.lower())
    for one, other in PHRASES.items():
        text = text.replace(one, other)
    return [SAME.get(word, word) for word in text.split() if word not in FILLERS]


def is_right(wanted: str, answer: str) -> bool:
    """Whether an answer says what it should; synonyms, fillers, capitals and marks aside."""
    return bool(answer.strip()) and meaning(answer) == meaning(wanted)


def _size(rng: random.Random) -> tuple[int, int]:
    """A picture's (height, width) in pixels."""
    short = PICTURE_SIDE if rng.random() < 0.5 else rng.randint(NARROWEST, PICTURE_SIDE)
    return (short, PICTURE_SIDE) if rng.random() < 0.5 else (PICTURE_SIDE, short)


class QuestionSet:
    """Draws media and dialogues.

    Args:
        seed: of all draws.
        held_out: combinations and templates that training never uses; else those it uses.
        pairs: pictures and clips of the pairs of colour and shape that training never shows.
        strangers: ask as people do who never saw training's templates, nor the held-out ones.
        draw: the renderer: (scene, height, width, frames) -> uint8 [T, H, W, 3].
    """

    def __init__(
        self,
        seed: int,
        held_out: bool,
        pairs: bool = False,
        strangers: bool = False,
        draw: Callable[..., np.ndarray] = render,
    ) -> None:
        self.seed = seed
        self.held_out = held_out
        self.pairs = pairs
        self.draw = draw
        self.words = stranger_question if strangers else None

    def dialogues(self, kind: str) -> Iterator[tuple[Media, Dialogue]]:
        """Endless (media, dialogue) of one kind; most kinds alternate between pictures and clips."""
        rng = random.Random(f"{self.seed}/{kind}")
        for number in count(1):
            if kind == "changed":
                yield self._compared(rng)
                continue
            clip = kind in ABOUT_CLIPS or (kind not in STILL_KINDS and number % 3 == 0)
            scene, size = self._scene(rng, self._num_objects(kind, rng, number), clip)
            sampler = QuestionSampler(scene, rng, clip, self.held_out, self.words)
            dialogue = self._dialogue(kind, sampler, number)
            # not every scene allows every question
            if dialogue:
                yield [self._medium(scene, rng, clip, size)], dialogue

    def _num_objects(self, kind: str, rng: random.Random, number: int) -> int:
        """How many objects the scene of the ``number``-th dialogue has."""
        if self.pairs or kind == "speed":
            return 1
        if kind in ABOUT_MANY:
            return 1 + number % 6
        if kind == "first":
            return 1 + number % 2
        return 2 if kind in ABOUT_TWO else rng.choice((1, 1, 1, 2, 3))

    def _scene(self, rng: random.Random, objects: int, clip: bool) -> tuple[Scene, tuple[int, int]]:
        """A scene and its (height, width) in pixels."""
        height, width = _size(rng)
        aspect = aspect_of(height, width)
        motion = None if clip else rng.choice(PICTURE_MOTIONS)
        scene = sample_scene(rng, objects, self.held_out, motion, aspect=aspect, clip=clip, pairs=self.pairs)
        return scene, (height, width)

    def _medium(self, scene: Scene, rng: random.Random, clip: bool, size: tuple[int, int]) -> dict:
        """The scene as a part of a message."""
        frames = augment(self.draw(scene, *size, 9 if clip else 1), rng)
        if clip:
            return {"type": "video", "video": frames[[0, 3, 5, 8]]}
        return {"type": "image", "image": Image.fromarray(frames[0])}

    def _compared(self, rng: random.Random) -> tuple[Media, Dialogue]:
        """Two pictures and what changed between them."""
        change = sample_change(rng, self.held_out)
        qa = ask_changed(change, rng, self.held_out)
        if self.words is not None:
            qa = replace(qa, question=self.words("changed", rng))
        size = (PICTURE_SIDE, PICTURE_SIDE)
        return [self._medium(scene, rng, False, size) for scene in (change.before, change.after)], [qa]

    def _dialogue(self, kind: str, sampler: QuestionSampler, number: int) -> Dialogue:
        """One question of a kind, or several of different kinds; empty where the scene does not allow it."""
        if kind == "yes_no":
            return [sampler.yes_no(truth=number % 2 == 0)]
        if kind not in TURNS:
            qa = sampler.ask(kind)
            return [qa] if qa else []
        rng = sampler.rng
        kinds = sorted(set(kinds_for(sampler.scene, sampler.clip)))
        asked = [qa for qa in map(sampler.ask, rng.sample(kinds, len(kinds))) if qa]
        if len(asked) < TURNS[kind]:
            return []
        later = [replace(qa, question=follow_up(qa.question, rng)) for qa in asked[1 : TURNS[kind]]]
        return [asked[0], *later]


def _reply(omni: HaploOmni, messages: list[dict]) -> str:
    """The likeliest answer, cut off where it would be too long."""
    return "".join(omni.chat(messages, temperature=0.0, max_new_tokens=48))


def run_dialogue(omni: HaploOmni, media: Media, dialogue: Dialogue) -> bool:
    """Whether the last answer of a dialogue is right; earlier answers in its history are the model's own."""
    messages: list[dict] = []
    for turn, qa in enumerate(dialogue):
        parts = media if turn == 0 else []
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": qa.question}]})
        answer = _reply(omni, messages)
        messages.append({"role": "assistant", "content": answer})
    return is_right(dialogue[-1].answer, answer)


def evaluate_answers(
    omni: HaploOmni,
    questions: int,
    question_set: QuestionSet,
    kinds: tuple[str, ...] = KINDS,
    progress: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Ask questions of every kind.

    Args:
        questions: of every kind but small talk, which has its own few.
        question_set: draws them.
        progress: called with 1 after every question.

    Returns:
        {kind: (right, total)}, and of all kinds together as "overall".
    """
    counts: Counter = Counter()
    for kind in kinds:
        if kind == "small_talk":
            for variants, wanted in SMALL_TALK:
                answer = _reply(omni, [{"role": "user", "content": variants[0]}])
                counts[kind, "total"] += 1
                counts[kind, "right"] += is_right(wanted, answer)
            continue
        dialogues = question_set.dialogues(kind)
        for _ in range(questions):
            counts[kind, "total"] += 1
            counts[kind, "right"] += run_dialogue(omni, *next(dialogues))
            progress(1)
    for what in ("total", "right"):
        counts["overall", what] = sum(counts[kind, what] for kind in kinds)
    return scores(counts)
