"""Several visitors of one engine: whose job runs, who waits, and who has enough."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from app.engine.engine import Engine
from app.engine.jobs import Finished, Queued, Started, State
from app.engine.turns import Lane
from core.errors import BusyError

SOON_S = 20.0


@pytest.fixture
def engine():
    made = Engine(omni=None, max_queue=20, max_per_visitor=3)
    yield made
    made.close()


def ended(events: queue.Queue) -> Finished:
    while True:
        event = events.get(timeout=SOON_S)
        if isinstance(event, Finished):
            return event


class Held:
    """A job that runs until it is released."""

    def __init__(self, engine, owner, lane=Lane.CLIP):
        self.events: queue.Queue = queue.Queue()
        self.release = threading.Event()
        self.job = engine.submit(self._work, self.events.put, lane=lane, owner=owner)

    def _work(self, _):
        while not self.release.wait(0.001):
            yield 0

    def wait_for(self, kind):
        """The next event of a kind."""
        while True:
            event = self.events.get(timeout=SOON_S)
            if isinstance(event, kind):
                return event

    @property
    def ahead(self):
        """The last place in the line that was told."""
        places = [event.ahead for event in list(self.events.queue) if isinstance(event, Queued)]
        return places[-1]


def test_nobodys_second_job_goes_before_others_first(engine):
    first = Held(engine, "ada")
    first.wait_for(Started)
    second = Held(engine, "ada")
    third = Held(engine, "ada")
    other = Held(engine, "ben")
    assert (other.ahead, second.ahead, third.ahead) == (1, 2, 3)
    first.release.set()
    other.wait_for(Started)
    assert second.job.state is State.QUEUED
    for held in (other, second, third):
        held.release.set()
    assert second.wait_for(Finished).state is State.DONE
    assert third.wait_for(Finished).state is State.DONE


def test_chats_run_together_and_beside_a_clip(engine):
    clip = Held(engine, "ada")
    chats = [Held(engine, f"visitor {number}", Lane.CHAT) for number in range(4)]
    for held in (clip, *chats):
        assert held.wait_for(Queued).ahead == 0, "a place is free, so nobody is waited for"
        held.wait_for(Started)
    late = [Held(engine, f"late {number}", Lane.CHAT) for number in range(2)]
    assert [held.ahead for held in late] == [1, 2], "so many must end first"
    chats += late
    chats[0].release.set()
    late[0].wait_for(Started)
    assert late[1].ahead == 1
    for held in (clip, *chats):
        held.release.set()
        assert held.wait_for(Finished).state is State.DONE


def test_a_visitor_has_enough_at_three_and_others_are_not_touched(engine):
    held = [Held(engine, "ada") for _ in range(3)]
    with pytest.raises(BusyError, match="3 of your jobs are running or waiting already; stop one"):
        Held(engine, "ada", Lane.CHAT)
    other = Held(engine, "ben")
    held[1].job.cancel()
    assert held[1].wait_for(Finished).state is State.CANCELLED
    assert (other.ahead, held[2].ahead) == (1, 2), "who stops moves the own jobs up, and nobody else's down"
    held.append(Held(engine, "ada"))
    for one in (held[0], other, held[2], held[3]):
        one.release.set()
        assert one.wait_for(Finished).state is State.DONE


def test_jobs_of_nobody_are_limited_by_the_queue_alone(engine):
    jobs = [Held(engine, "") for _ in range(6)]
    for one in jobs:
        one.release.set()
        assert one.wait_for(Finished).state is State.DONE


def test_a_stop_is_heard_at_the_next_turn_whoever_else_runs(engine):
    clip = Held(engine, "ada")
    chat = Held(engine, "ben", Lane.CHAT)
    clip.wait_for(Started)
    chat.wait_for(Started)
    clip.job.cancel()
    assert clip.wait_for(Finished).state is State.CANCELLED
    assert chat.job.state is State.RUNNING
    chat.release.set()
    assert chat.wait_for(Finished).state is State.DONE


def test_who_is_waited_for_goes_before_who_is_not(engine):
    """A closed tab's job holds neither a place nor a turn against somebody who looks."""
    release, order = threading.Event(), []

    def left(_):
        release.wait(SOON_S)
        for _ in range(50):
            order.append("left")
            time.sleep(0.002)
            yield 1

    def looked_at(name):
        def work(_):
            for _ in range(5):
                order.append(name)
                yield 1

        return work

    boxes = [queue.Queue() for _ in range(4)]
    first = engine.submit(left, boxes[0].put, owner="ada")
    second = engine.submit(left, boxes[1].put, owner="ben")
    engine.attend(first, False)
    engine.attend(second, False)
    for number in (2, 3):
        engine.submit(looked_at(f"job {number}"), boxes[number].put, owner=f"visitor {number}")
    release.set()
    for box in boxes:
        assert ended(box).state is State.DONE
    asked = [name for name in order if name != "left"]
    assert asked == ["job 2"] * 5 + ["job 3"] * 5
    assert order.index("job 3") <= 7, "at most the step that ran came before"
    assert order.count("left") == 100, "what nobody waited for was made all the same"


def test_a_full_line_gives_up_one_that_nobody_waits_for():
    engine, release = Engine(omni=None, max_queue=2), threading.Event()

    def waits(_):
        yield release.wait(SOON_S)

    boxes = [queue.Queue() for _ in range(5)]
    jobs = []
    for box in boxes[:3]:
        jobs.append(engine.submit(waits, box.put))
        while not engine.busy:
            time.sleep(0.005)
    with pytest.raises(BusyError):
        engine.submit(waits, boxes[3].put)
    engine.attend(jobs[1], False)
    engine.submit(waits, boxes[4].put)
    assert ended(boxes[1]).state is State.CANCELLED
    release.set()
    for number in (0, 2, 4):
        assert ended(boxes[number]).state is State.DONE
    engine.close()
