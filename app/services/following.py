"""The one loop over a job's events: what whoever asked wants of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from app.engine.engine import Engine
from app.engine.jobs import Finished, Progress, Queued, Started
from app.engine.turns import Lane
from app.errors import user_message
from app.formatting import elapsed_label, plural
from core.errors import HaploOmniError


@dataclass(frozen=True)
class Status:
    """What to say while nothing of a result has come; an empty text is a mere sign of life."""

    text: str


async def follow(
    engine: Engine, work: Callable[[Any], Iterator[Any]], label: str, lane: Lane, owner: str = ""
) -> AsyncGenerator[Any, None]:
    """Run ``work(omni)`` and give every value of it; :class:`Status` before the first and at every heartbeat.

    However the reader ends, the job ends with it; read it inside ``contextlib.aclosing``.

    Args:
        label: what is done until the first value comes, such as "Reading".
        lane: with what work the job shares the model's time.
        owner: the visitor who asks.

    Raises:
        HaploOmniError: the job failed; the sentence that a person is told.
    """
    started_s: float | None = None  # while the job runs and nothing of its result is to be seen
    async with aclosing(engine.stream(work, lane, owner)) as events:
        async for event in events:
            if isinstance(event, Progress):
                started_s = None
                yield event.value
            elif isinstance(event, Started):
                started_s = time.monotonic()
                yield Status(f"{label}…")
            elif isinstance(event, Queued):
                yield Status(f"Waiting for {plural(event.ahead, 'other job')}…" if event.ahead else "")
            elif isinstance(event, Finished):
                if event.error is not None:
                    # never the error itself: a job's SystemExit would end the server
                    raise HaploOmniError(user_message(event.error))
            else:
                yield Status("" if started_s is None else elapsed_label(label, started_s))
