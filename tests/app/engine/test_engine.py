"""The engine with scripted work: one job at a time, stop and errors free it, to each their own events."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from app.engine.engine import Engine
from app.engine.jobs import Finished, Progress, Queued, Started, State
from app.errors import user_message
from core.errors import BusyError, MediaError


@pytest.fixture
def engine():
    made = Engine(omni="the model", max_queue=3)
    yield made
    made.close()


def collect(events: queue.Queue, timeout_s: float = 10.0) -> list:
    """Everything up to the end of a job."""
    seen = []
    while not seen or not isinstance(seen[-1], Finished):
        seen.append(events.get(timeout=timeout_s))
    return seen


def counting(steps: int, pause_s: float = 0.0, log: list | None = None):
    def work(omni):
        assert omni == "the model"
        try:
            for i in range(steps):
                if log is not None:
                    log.append(("in", threading.get_ident()))
                time.sleep(pause_s)
                yield i
        finally:
            if log is not None:
                log.append(("closed", threading.get_ident()))

    return work


def test_values_then_the_end(engine):
    events = queue.Queue()
    engine.submit(counting(3), events.put)
    seen = collect(events)
    assert [e.value for e in seen if isinstance(e, Progress)] == [0, 1, 2]
    assert seen[-1].state is State.DONE


def test_one_at_a_time_in_order(engine):
    active, most = [], []

    def work(_):
        active.append(1)
        most.append(len(active))
        time.sleep(0.05)
        yield 1
        active.pop()

    boxes = [queue.Queue() for _ in range(4)]
    for box in boxes:
        engine.submit(work, box.put)
        time.sleep(0.01)
    ends = [collect(box) for box in boxes]
    assert max(most) == 1 and all(seen[-1].state is State.DONE for seen in ends)
    assert any(isinstance(e, Queued) and e.ahead >= 1 for e in ends[-1])


def test_a_job_stopped_while_waiting_takes_nobodys_place(engine):
    release, running = threading.Event(), queue.Queue()

    def blocking(_):
        yield 0
        release.wait(10)
        yield 1

    engine.submit(blocking, running.put)
    while not isinstance(running.get(timeout=5), Progress):
        pass
    boxes = [queue.Queue() for _ in range(3)]
    waiting = [engine.submit(counting(1), box.put) for box in boxes]
    for job in waiting:
        job.cancel()
    late = queue.Queue()
    engine.submit(counting(1), late.put)  # the line of three was full of stopped jobs
    assert all(collect(box)[-1].state is State.CANCELLED for box in boxes)
    assert late.get(timeout=5) == Queued(1)
    release.set()
    assert collect(late)[-1].state is State.DONE


def test_a_job_is_told_when_its_turn_has_come(engine):
    events = queue.Queue()
    engine.submit(counting(1), events.put)
    seen = [type(event) for event in collect(events)]
    assert seen == [Queued, Started, Progress, Finished]


def test_a_preemptible_job_ends_when_another_comes(engine):
    idle, waiting, mine = queue.Queue(), queue.Queue(), queue.Queue()
    engine.submit(counting(1000, 0.01), idle.put, preemptible=True)
    while not isinstance(idle.get(timeout=5), Progress):
        pass
    engine.submit(counting(1000, 0.01), waiting.put, preemptible=True)
    engine.submit(counting(3), mine.put)
    assert collect(idle)[-1].state is State.CANCELLED
    assert collect(waiting)[-1].state is State.CANCELLED
    assert collect(mine)[-1].state is State.DONE


def test_cancel_stops_at_the_next_step_in_the_same_thread(engine):
    events, log = queue.Queue(), []
    job = engine.submit(counting(1000, 0.01, log), events.put)
    while not isinstance(events.get(timeout=5), Progress):
        pass
    job.cancel()
    assert collect(events)[-1].state is State.CANCELLED
    assert log[-1][0] == "closed" and len({thread for _, thread in log}) == 1
    assert len(log) < 20


def test_an_error_ends_the_job_and_the_next_one_runs(engine):
    def broken(_):
        yield 1
        raise MediaError("The picture is upside down.")

    events = queue.Queue()
    engine.submit(broken, events.put)
    last = collect(events)[-1]
    assert last.state is State.FAILED and user_message(last.error) == "The picture is upside down."
    again = queue.Queue()
    engine.submit(counting(1), again.put)
    assert collect(again)[-1].state is State.DONE


def test_a_full_queue_refuses(engine):
    boxes = [queue.Queue() for _ in range(4)]
    engine.submit(counting(40, 0.02), boxes[0].put)
    while not engine.busy:
        time.sleep(0.005)
    jobs = [engine.submit(counting(1), box.put) for box in boxes[1:]]
    with pytest.raises(BusyError, match="3 jobs are waiting"):
        engine.submit(counting(1), print)
    jobs[1].cancel()
    assert collect(boxes[2])[-1].state is State.CANCELLED
    assert collect(boxes[3])[-1].state is State.DONE


def test_unexpected_errors_tell_no_details(caplog):
    said = user_message(KeyError("/secret/path"))
    assert "secret" not in said and "log" in said
    assert "smaller" in user_message(RuntimeError("CUDA out of memory. Tried to allocate"))
    assert "secret" in caplog.text
