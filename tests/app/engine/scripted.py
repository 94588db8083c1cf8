"""A kind of job whose jobs are functions: what a test wants to happen."""

from __future__ import annotations

import time
from contextlib import aclosing

from app.engine.jobs import Progress
from app.engine.tickets import Tickets
from app.engine.turns import Lane
from core.errors import TicketError

SOON_S = 20.0
OWNER = "a" * 48


class Scripted:
    """Runs a job by calling it; written down is its name, its result is its values."""

    name = "scripted"
    lane = Lane.CLIP

    def __init__(self, **known) -> None:
        self.known = known

    def work(self, omni, job, /):
        return job(omni)

    def expected_s(self, _, /):
        return None, None

    def to_record(self, job, /):
        return {"name": job.__name__}

    def from_record(self, record, /):
        return self.known[record["name"]]

    def result_record(self, values, /):
        return [value for value in values if isinstance(value, int)]

    def from_result(self, _, record, /):
        return record


def tickets_of(engine, **named) -> Tickets:
    """Tickets over an engine, for scripted jobs."""
    tickets = Tickets(engine, **named)
    tickets.offer(Scripted())
    return tickets


async def stream(tickets, work, owner=OWNER, **named):
    """Submit a job and follow it: its events, and None at a heartbeat."""
    ticket = tickets.submit("scripted", work, owner, **named)
    async with aclosing(tickets.follow(ticket.id, owner)) as events:
        async for numbered in events:
            yield None if numbered is None else numbered[1]


def eventually(true) -> bool:
    """Whether something becomes true soon."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.01)
    return False


async def read(tickets, ticket, after=0, most=None, owner=OWNER):
    """Numbered events, at most so many."""
    seen = []
    async with aclosing(tickets.follow(ticket.id, owner, after)) as events:
        async for numbered in events:
            if numbered is not None:
                seen.append(numbered)
            if most is not None and len(seen) >= most:
                break
    return seen


def values(seen):
    return [event.value for _, event in seen if isinstance(event, Progress)]


def is_known(tickets, ticket_id) -> bool:
    try:
        tickets.get(ticket_id, OWNER)
    except TicketError:
        return False
    return True
