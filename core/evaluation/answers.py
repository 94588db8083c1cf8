"""Answers about held-out scenes, asked for in held-out words, against the truth."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from PIL import Image

from core.evaluation.clips import Scores, scores
from core.pipelines import HaploOmni
from core.training.batches import PICTURE_MOTIONS
from core.training.drawing import photograph
from core.training.phrases import follow_up
from core.training.scenes import Scene, aspect_of, combinations, render, sample_object, sample_scene
from core.training.tasks import SMALL_TALK, Exchange, Interview, kinds_for

ABOUT_ONE = ("colour", "shape", "background", "position", "size", "caption", "refusal", "yes_no")
ABOUT_CLIPS = ("motion", "speed")
ABOUT_TWO = ("relation", "neighbour")
KINDS = (*ABOUT_ONE, *ABOUT_CLIPS, *ABOUT_TWO, "count", "two_turn", "small_talk")
PICTURE_SIDE = 168  # drawn larger than a tile, so that resizing is part of the test
NARROWEST = 80  # pixels of a picture's shorter side


def is_right(wanted: str, answer: str) -> bool:
    """Whether an answer says what it should, word for word; capitals and closing marks aside."""
    return answer.lower().rstrip(".! ") == wanted.lower().rstrip(".! ")


def _size(rng: random.Random) -> tuple[int, int]:
    short = PICTURE_SIDE if rng.random() < 0.5 else rng.randint(NARROWEST, PICTURE_SIDE)
    return (short, PICTURE_SIDE) if rng.random() < 0.5 else (PICTURE_SIDE, short)


class Exam:
    """Draws media and talks.

    Args:
        seed: of all draws.
        held_out: combinations and phrasings that training never uses; else those it uses.
        pairs: pictures and clips of the pairs of colour and shape that training never shows.
    """

    def __init__(self, seed: int, held_out: bool, pairs: bool = False) -> None:
        self.seed, self.held_out, self.pairs = seed, held_out, pairs

    def talks(self, kind: str) -> Iterator[tuple[dict, list[Exchange]]]:
        """Endless (medium, talk) of one kind; most kinds alternate between pictures and clips."""
        rng, number = random.Random(f"{self.seed}/{kind}"), 0
        while True:
            number += 1
            clip = kind in ABOUT_CLIPS or (kind not in ("position", "size", "count") and number % 3 == 0)
            count = 1 + number % 4 if kind == "count" else 2 if kind in ABOUT_TWO else rng.choice((1, 1, 1, 2, 3))
            count = 1 if kind == "speed" or self.pairs else count
            scene, size = self._scene(rng, count, clip)
            talk = self._talk(kind, Interview(scene, rng, clip, self.held_out), number)
            if talk:
                yield self._medium(scene, rng, clip, size), talk

    def _scene(self, rng: random.Random, count: int, clip: bool) -> tuple[Scene, tuple[int, int]]:
        height, width = _size(rng)
        aspect = aspect_of(height, width)
        motion = None if clip else rng.choice(PICTURE_MOTIONS)
        scene = sample_scene(rng, count, self.held_out, motion, aspect=aspect, clip=clip)
        if self.pairs:
            wanted = scene.objects[0].motion
            combination = rng.choice([c for c in combinations(True, pairs=True) if c[2] == wanted])
            scene = replace(scene, objects=(sample_object(combination, rng, aspect=aspect),))
        return scene, (height, width)

    def _medium(self, scene: Scene, rng: random.Random, clip: bool, size: tuple[int, int]) -> dict:
        frames = photograph(render(scene, *size, 9 if clip else 1), rng)
        if clip:
            return {"type": "video", "video": frames[[0, 3, 5, 8]]}
        return {"type": "image", "image": Image.fromarray(frames[0])}

    def _talk(self, kind: str, interview: Interview, number: int) -> list[Exchange]:
        if kind == "yes_no":
            return [interview.yes_no(truth=number % 2 == 0)]
        if kind != "two_turn":
            exchange = interview.ask(kind)
            return [exchange] if exchange else []
        rng, kinds = interview.rng, sorted(set(kinds_for(interview.scene, interview.clip)))
        asked = [exchange for exchange in map(interview.ask, rng.sample(kinds, len(kinds))) if exchange]
        if len(asked) < 2:
            return []
        return [asked[0], replace(asked[1], question=follow_up(asked[1].question, rng))]


def _reply(omni: HaploOmni, messages: list[dict]) -> str:
    return "".join(omni.chat(messages, temperature=0.0, max_new_tokens=48))


def hold_talk(omni: HaploOmni, medium: dict, talk: list[Exchange]) -> bool:
    """Whether the last answer of a talk is right, the model's own earlier answers standing in the history."""
    messages: list[dict] = []
    for turn, exchange in enumerate(talk):
        parts = [medium] if turn == 0 else []
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": exchange.question}]})
        answer = _reply(omni, messages)
        messages.append({"role": "assistant", "content": answer})
    return is_right(talk[-1].answer, answer)


def evaluate_answers(
    omni: HaploOmni, count: int, exam: Exam, kinds: tuple[str, ...] = KINDS, progress: Callable[[int], None] = lambda _: None
) -> Scores:
    """``count`` questions of every kind; {kind: (right, total)} and all kinds together."""
    counts: Counter = Counter()
    for kind in kinds:
        if kind == "small_talk":
            for questions, wanted in SMALL_TALK:
                counts[kind, "total"] += 1
                counts[kind, "right"] += is_right(wanted, _reply(omni, [{"role": "user", "content": questions[0]}]))
            continue
        talks = exam.talks(kind)
        for _ in range(count):
            counts[kind, "total"] += 1
            counts[kind, "right"] += hold_talk(omni, *next(talks))
            progress(1)
    for what in ("total", "right"):
        counts["overall", what] = sum(counts[kind, what] for kind in kinds)
    return scores(counts)
