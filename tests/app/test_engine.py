"""The engine's events in an async handler."""

from __future__ import annotations

import asyncio

import pytest

from app.engine import Engine
from app.jobs import Job, Progress


@pytest.mark.parametrize("turns_later", range(5))
def test_a_cancel_that_meets_an_event_is_not_forgotten(turns_later, monkeypatch):
    engine = Engine(None)
    jobs = []

    def submit(work, listen):
        jobs.append(Job(lambda: iter(()), listen))
        return jobs[-1]

    monkeypatch.setattr(engine, "submit", submit)

    async def read():
        async for _ in engine.stream(lambda _: iter(())):
            pass

    async def stopped_while_an_event_arrives():
        reading = asyncio.create_task(read())
        while not jobs:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        jobs[0].listen(Progress("word", 0.0))
        for _ in range(turns_later):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading}, timeout=5)
        assert reading.cancelled()

    asyncio.run(stopped_while_an_event_arrives())
    assert jobs[0].cancelled
    engine.close()
