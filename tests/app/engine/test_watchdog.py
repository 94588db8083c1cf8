"""A step that hangs is named and its job ended; a job that takes too long is told; waits are foretold."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from app.engine.engine import Engine
from app.engine.health import state_of
from app.engine.jobs import Finished, Job, Progress, Queued, Started, State
from app.engine.turns import Lane
from app.engine.watchdog import AT_LEAST_S, TIMES, UNKNOWN_S, Watchdog, allowed_s
from core.errors import RequestError, StoppedError

SOON_S = 20.0


@pytest.fixture
def engine():
    made = Engine(omni=None)
    yield made
    made.close()


def good(_):
    yield 1


def ended(events: queue.Queue) -> Finished:
    while True:
        event = events.get(timeout=SOON_S)
        if isinstance(event, Finished):
            return event


def job(**named) -> Job:
    return Job(lambda: iter(()), print, **named)


def test_what_a_step_may_take():
    assert allowed_s(job()) == UNKNOWN_S
    assert allowed_s(job(expected_step_s=0.1)) == AT_LEAST_S, "a busy machine is no hanging one"
    assert allowed_s(job(expected_step_s=30.0)) == 30.0 * TIMES
    slow = job(expected_step_s=1.0)
    for _ in range(4):
        slow.charge(40.0)
    assert allowed_s(slow) == 40.0 * TIMES, "what was measured counts too"


def test_a_step_that_hangs_is_named_and_the_others_go_on_once_it_is_back(engine, monkeypatch):
    release, box, next_box = threading.Event(), queue.Queue(), queue.Queue()

    def hangs(_):
        yield 1
        release.wait(SOON_S)
        yield 2

    monkeypatch.setattr("app.engine.watchdog.allowed_s", lambda _: 0.05)
    engine.submit(hangs, box.put)
    while not isinstance(box.get(timeout=SOON_S), Progress):
        pass
    time.sleep(0.1)
    dog = Watchdog(engine, look_s=0.02)
    last = ended(box)
    assert last.state is State.FAILED and isinstance(last.error, StoppedError)
    assert "One step has taken" in str(last.error)
    assert state_of(engine)["state"] == "hanging" and not engine.healthy
    engine.submit(good, next_box.put)
    release.set()
    assert ended(next_box).state is State.DONE
    dog.close()
    assert engine.healthy and box.empty(), "the hanging job's end was told once"


def test_a_quick_step_is_left_alone(engine):
    box = queue.Queue()
    dog = Watchdog(engine, look_s=0.01)
    for _ in range(5):
        engine.submit(good, box.put)
        assert ended(box).state is State.DONE
    dog.close()
    assert engine.healthy


def test_one_job_has_its_time():
    engine, box, other, closed = Engine(omni=None, max_job_s=0.2), queue.Queue(), queue.Queue(), []

    def long(_):
        try:
            while True:
                time.sleep(0.02)
                yield 1
        finally:
            closed.append(True)

    engine.submit(long, box.put)
    last = ended(box)
    assert last.state is State.FAILED and isinstance(last.error, RequestError)
    assert "one job may take" in str(last.error)
    engine.submit(good, other.put)
    assert ended(other).state is State.DONE and closed == [True]
    engine.close()


def test_the_wait_is_the_time_of_those_ahead(engine):
    release, boxes = threading.Event(), [queue.Queue() for _ in range(4)]

    def waits(_):
        yield release.wait(SOON_S)

    for box, seconds in zip(boxes, (10.0, 20.0, 40.0, None), strict=True):
        engine.submit(waits, box.put, expected_s=seconds)
    while not isinstance(boxes[0].get(timeout=SOON_S), Started):
        pass
    last = [box.queue[-1] for box in boxes[1:]]
    assert last == [Queued(1, 10.0), Queued(2, 30.0), Queued(3, 70.0)]
    release.set()


def test_the_wait_counts_the_shares_of_chats_and_is_unknown_where_one_is(engine):
    release, started, boxes = threading.Event(), queue.Queue(), [queue.Queue() for _ in range(3)]

    def waits(_):
        yield release.wait(SOON_S)

    engine.submit(waits, started.put, expected_s=10.0)
    while not isinstance(started.get(timeout=SOON_S), Started):
        pass
    engine.submit(waits, queue.Queue().put, lane=Lane.CHAT)
    waiting = engine.submit(waits, boxes[0].put, expected_s=None)
    behind = engine.submit(waits, boxes[1].put)
    assert engine.wait_of(waiting).ahead == 1
    assert engine.wait_of(waiting).wait_s in (10.0, 30.0), (
        "three times as long once a chat takes its two thirds"
    )
    assert engine.wait_of(behind) == Queued(2), "nobody knows how long the one before it takes"
    release.set()
