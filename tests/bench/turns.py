"""Chats and a clip on one model: turns of one step against one job at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from app.engine.engine import Engine
from app.engine.jobs import Finished, Progress
from app.engine.turns import Lane, Turns
from core.requests import Sampling
from tests.bench.table import row

STEPS = 40
WORDS = 60
QUESTION = [{"role": "user", "content": "Describe the picture."}]
ROUNDS = 20_000


class Watched:
    """A job of the engine, and when it began and gave what."""

    def __init__(self, engine: Engine, work: Callable[[Any], Iterator[Any]], lane: Lane, owner: str) -> None:
        self.times: list[float] = []
        self.begun = threading.Event()
        self.done = threading.Event()
        self.started_s = time.perf_counter()
        engine.submit(work, self._hear, lane=lane, owner=owner)

    def _hear(self, event: object) -> None:
        if isinstance(event, Progress):
            self.times.append(time.perf_counter())
            self.begun.set()
        elif isinstance(event, Finished):
            self.done.set()

    @property
    def first_s(self) -> float:
        """Seconds to the first value."""
        return self.times[0] - self.started_s

    @property
    def whole_s(self) -> float:
        """Seconds to the last value."""
        return self.times[-1] - self.started_s


def bench_turns(omni) -> list[str]:  # type: ignore[no-untyped-def]
    """First words beside a clip, a clip beside a chat, and what the sharing itself costs."""

    def chat(_: object) -> Iterator[Any]:
        return omni.chat_steps(QUESTION, Sampling(WORDS))

    def clip(_: object) -> Iterator[Any]:
        return omni.text_to_video("a red circle", num_inference_steps=STEPS, seed=1)

    def together(chat_lane: Lane) -> tuple[Watched, Watched]:
        """A chat that is asked in the middle of a clip."""
        made = Watched(engine, clip, Lane.CLIP, "ada")
        made.begun.wait()
        asked = Watched(engine, chat, chat_lane, "ben")
        made.done.wait()
        asked.done.wait()
        return asked, made

    engine = Engine(omni)
    try:
        alone = Watched(engine, clip, Lane.CLIP, "ada")
        alone.done.wait()
        quiet = Watched(engine, chat, Lane.CHAT, "ben")
        quiet.done.wait()
        asked, made = together(Lane.CHAT)
        queued, _ = together(Lane.CLIP)
    finally:
        engine.close()
    step_s = alone.whole_s / (STEPS + 1)
    name = "first word beside a running clip"
    return [
        row(name, asked.first_s * 1000, queued.first_s * 1000, "ms", "one job at a time"),
        row(
            f"{name}, in its denoising steps",
            asked.first_s / step_s,
            quiet.first_s / step_s,
            "steps",
            "no clip",
        ),
        row("a clip beside a chat", made.whole_s, alone.whole_s, "s", "the clip alone"),
        row("one turn shared out", _sharing_s() * 1000, step_s * 1000, "ms", "a denoising step"),
    ]


def _sharing_s() -> float:
    """Seconds to choose whose turn it is and to charge it, with eight jobs of four visitors."""
    turns: Turns[int] = Turns()
    for number in range(8):
        turns.add(number, Lane.CHAT if number % 2 else Lane.CLIP, f"visitor {number % 4}")
    began_s = time.perf_counter()
    for _ in range(ROUNDS):
        job = turns.next()
        assert job is not None
        turns.charge(job, 0.01)
    return (time.perf_counter() - began_s) / ROUNDS
