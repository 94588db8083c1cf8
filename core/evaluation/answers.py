"""Answers about held-out scenes against the truth."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

from PIL import Image

from core.evaluation.clips import Scores, scores
from core.pipelines import HaploOmni
from core.training.scenes import Scene, render, sample_scene
from core.training.tasks import (
    SMALL_TALK,
    Exchange,
    group_exchange,
    single_exchange,
    yes_no,
)

KINDS = ("colour", "shape", "count", "background", "position", "size", "motion", "yes_no", "caption", "two_turn", "small_talk")
PICTURE_SIDE = 168  # drawn larger than a tile, so that resizing is part of the test
CLIP_SIDE = 126


def is_right(kind: str, key: str, answer: str) -> bool:
    """Whether ``answer`` says ``key``: the whole sentence for captions and talk, the word itself otherwise."""
    said = answer.lower().rstrip(".! ")
    if kind in ("caption", "small_talk"):
        return said == key.lower().rstrip(".! ")
    if kind == "yes_no":
        return said.startswith(key)
    return f" {said} ".endswith(f" {key} ") or (f" {key} " in f" {said} " and kind == "count")


def _medium(scene: Scene, clip: bool) -> dict:
    if clip:
        return {"type": "video", "video": render(scene, CLIP_SIDE, CLIP_SIDE, 9)[[0, 3, 5, 8]]}
    return {"type": "image", "image": Image.fromarray(render(scene, PICTURE_SIDE, PICTURE_SIDE)[0])}


def _reply(omni: HaploOmni, messages: list[dict]) -> str:
    return "".join(omni.chat(messages, temperature=0.0, max_new_tokens=40))


def _ask(omni: HaploOmni, medium: dict, talk: list[Exchange]) -> bool:
    """Whether the last answer of a talk is right, the model's own earlier answers standing in the history."""
    messages: list[dict] = []
    for turn, exchange in enumerate(talk):
        parts = [medium] if turn == 0 else []
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": exchange.question}]})
        answer = _reply(omni, messages)
        messages.append({"role": "assistant", "content": answer})
    return is_right(talk[-1].kind, talk[-1].key, answer)


def _talks(kind: str, rng: random.Random, held_out: bool) -> Iterator[tuple[dict, list[Exchange]]]:
    """Endless (medium, talk) of one kind; captions and two-turn talks alternate between pictures and clips."""
    number = 0
    while True:
        number += 1
        clip = kind == "motion" or (kind in ("caption", "two_turn", "yes_no") and number % 3 == 0)
        if kind == "count":
            scene = sample_scene(rng, count=1 + number % 4, held_out=held_out, motion="still")
            exchange = group_exchange(kind, scene, rng) if len(scene.objects) > 1 else single_exchange(kind, scene, rng, False)
            assert exchange is not None
            yield _medium(scene, False), [exchange]
            continue
        scene = sample_scene(rng, held_out=held_out, motion=None if clip else "still")
        if kind == "yes_no":
            talk = [yes_no(scene, rng, clip, wanted=number % 2 == 0)]
        elif kind == "two_turn":
            first = rng.choice(("colour", "shape"))
            second = "follow_shape" if first == "colour" else "follow_colour"
            talk = [single_exchange(first, scene, rng, clip), single_exchange(second, scene, rng, clip)]
        else:
            talk = [single_exchange(kind, scene, rng, clip)]
        yield _medium(scene, clip), talk


def evaluate_answers(
    omni: HaploOmni, count: int, held_out: bool, seed: int = 0, progress: Callable[[int], None] = lambda _: None
) -> Scores:
    """``count`` questions of every kind; {kind: (right, total)}."""
    counts: Counter = Counter()
    for kind in KINDS:
        rng = random.Random(f"{seed}/{kind}")
        if kind == "small_talk":
            for questions, answer in SMALL_TALK:
                said = _reply(omni, [{"role": "user", "content": questions[0]}])
                counts[kind, "total"] += 1
                counts[kind, "right"] += is_right(kind, answer, said)
            continue
        talks = _talks(kind, rng, held_out)
        for _ in range(count):
            medium, talk = next(talks)
            counts[kind, "total"] += 1
            counts[kind, "right"] += _ask(omni, medium, talk)
            progress(1)
    return scores(counts)
