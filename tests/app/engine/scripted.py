"""A kind of job whose jobs are functions: what a test wants to happen."""

from __future__ import annotations

from contextlib import aclosing

from app.engine.tickets import Tickets
from app.engine.turns import Lane

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
