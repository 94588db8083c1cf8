"""The one loop over a ticket's events: what whoever asked wants of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from app.engine.jobs import Finished, Passing, Progress, Queued, Started, State
from app.engine.tickets import Tickets
from app.errors import user_message
from app.formatting import duration, elapsed_label, plural
from core.errors import HaploOmniError


@dataclass(frozen=True)
class Status(Passing):
    """What to say while nothing of a result has come; an empty text is a mere sign of life."""

    text: str


@dataclass(frozen=True)
class Stopped:
    """The last value of a job that was stopped: the model is free again."""


async def follow(
    tickets: Tickets, ticket_id: str, owner: str, label: str, after: int = 0
) -> AsyncGenerator[Any, None]:
    """Every value of a job, with :class:`Status` before the first and at every heartbeat.

    A stop is told by :class:`Stopped`.
    A reader that ends leaves the job to its grace; read it inside ``contextlib.aclosing``.

    Args:
        label: what is done until the first value comes, such as "Reading".
        owner: the visitor who asked.
        after: how many events were seen already.

    Raises:
        HaploOmniError: the job failed, or it is not this visitor's; the sentence that a person is told.
    """
    started_s: float | None = None  # while the job runs and nothing of its result is to be seen
    async with aclosing(tickets.follow(ticket_id, owner, after)) as events:
        async for numbered in events:
            event = None if numbered is None else numbered[1]
            if isinstance(event, Progress):
                started_s = None
                yield event.value
            elif isinstance(event, Started):
                started_s = time.monotonic()
                yield Status(f"{label}…")
            elif isinstance(event, Queued):
                yield Status(waiting_label(event))
            elif isinstance(event, Finished):
                if event.error is not None:
                    # never the error itself: a job's SystemExit would end the server
                    raise HaploOmniError(user_message(event.error))
                if event.state is State.CANCELLED:
                    yield Stopped()
            else:
                yield Status("" if started_s is None else elapsed_label(label, started_s))


def waiting_label(place: Queued) -> str:
    """What to say of a place in the line."""
    if not place.ahead:
        return ""
    words = f"Waiting for {plural(place.ahead, 'other job')}"
    return f"{words}…" if place.wait_s is None else f"{words}, about {duration(max(1.0, place.wait_s))}…"
