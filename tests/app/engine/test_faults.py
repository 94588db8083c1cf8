"""Whatever is raised, wherever: that job ends, the others go on, and the engine lives."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.engine import SHUTTING_DOWN, STOPPED, Engine
from app.engine.jobs import Finished, Job, Progress, Queued, Started, State
from core.errors import StoppedError
from tests.app.engine.scripted import stream, tickets_of

SOON_S = 20.0
ERRORS = [
    ValueError("boom"),
    MemoryError(),
    StopIteration(),
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    asyncio.CancelledError(),
    BaseException("anything"),
]
WORK_PLACES = [
    "creating",
    "not_iterable",
    "iterating",
    "first_step",
    "later_step",
    "closing",
    "closing_lookup",
]


class Steps:
    """An iterator of three values that raises where it is told to."""

    def __init__(self, place: str, error: BaseException) -> None:
        self.place, self.error, self.count = place, error, 0

    def __iter__(self):
        if self.place == "iterating":
            raise self.error
        return self

    def __next__(self):
        self.count += 1
        if (self.place, self.count) in (("first_step", 1), ("later_step", 3)):
            raise self.error
        if self.count > 3:
            raise StopIteration
        return self.count

    def __getattr__(self, name):
        if name != "close":
            raise AttributeError(name)
        if self.place == "closing_lookup":
            raise self.error
        return self._close

    def _close(self) -> None:
        if self.place == "closing":
            raise self.error


def faulty(place: str, error: BaseException):
    def work(_):
        if place == "creating":
            raise error
        return 7 if place == "not_iterable" else Steps(place, error)

    return work


def good(_):
    yield from range(3)


def ended(events: queue.Queue) -> Finished:
    while True:
        event = events.get(timeout=SOON_S)
        if isinstance(event, Finished):
            return event


@pytest.fixture
def engine():
    made = Engine(omni=None, max_queue=100)
    yield made
    made.close()


def answers(engine) -> bool:
    """Whether the next job is done."""
    events = queue.Queue()
    engine.submit(good, events.put)
    return ended(events) == Finished(State.DONE) and engine.healthy


def is_a_fault(place: str, error: BaseException) -> bool:
    """A step that raises StopIteration is an iterator that says it is done."""
    return not (isinstance(error, StopIteration) and place.endswith("step"))


WORK_FAULTS = [pair for pair in itertools.product(WORK_PLACES, ERRORS) if is_a_fault(*pair)]


@pytest.mark.parametrize(
    ("place", "error"), WORK_FAULTS, ids=lambda e: e if isinstance(e, str) else type(e).__name__
)
def test_whatever_a_job_raises_it_ends_with_it(engine, place, error):
    events = queue.Queue()
    engine.submit(faulty(place, error), events.put)
    last = ended(events)
    assert last.state is State.FAILED
    assert isinstance(last.error, TypeError) if place == "not_iterable" else last.error is error
    assert answers(engine)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("kind", [Queued, Started, Progress, Finished])
def test_whatever_a_listener_raises_its_job_ends_and_it_hears_no_more(engine, kind, error):
    heard = []

    def listen(event):
        heard.append(event)
        if isinstance(event, kind):
            raise error

    job = engine.submit(good, listen)
    assert answers(engine)
    assert isinstance(heard[-1], kind)
    assert job.ended is not None
    if kind is Finished:
        assert job.ended == Finished(State.DONE)
    else:
        assert job.ended == Finished(State.CANCELLED, error)
        assert job.cancelled


def test_a_listener_that_fails_does_so_for_itself_alone(engine):
    """Places in the line are told to everybody; one who raises is nobody else's trouble."""
    release, first = threading.Event(), queue.Queue()

    def blocking(_):
        yield release.wait(SOON_S)

    def broken(event):
        raise SystemExit

    engine.submit(blocking, first.put)
    while not isinstance(first.get(timeout=SOON_S), Started):
        pass
    boxes = [queue.Queue() for _ in range(4)]
    for box in boxes:
        engine.submit(good, broken)
        engine.submit(good, box.put)
    assert engine.waiting == len(boxes), "who cannot hear does not wait"
    release.set()
    assert all(ended(box) == Finished(State.DONE) for box in (first, *boxes))


@pytest.mark.parametrize("kind", [Queued, Started, Progress, Finished])
def test_a_listener_may_submit_cancel_and_ask(engine, kind):
    """No lock is held while a listener is called: it can use the engine, and so can another thread."""
    inner, seen, asked = queue.Queue(), queue.Queue(), []

    def listen(event):
        seen.put(event)
        if not isinstance(event, kind) or asked:
            return
        asked.append(event)
        other = threading.Thread(target=lambda: engine.submit(good, inner.put))
        other.start()
        other.join(timeout=SOON_S)
        assert not other.is_alive(), "the engine's lock was held"
        engine.submit(good, inner.put)
        engine.submit(good, inner.put).cancel()
        assert engine.healthy

    engine.submit(good, listen)
    ended(seen)
    states = [ended(inner).state for _ in range(3)]
    assert sorted(state.value for state in states) == ["cancelled", "done", "done"]
    assert answers(engine)


def test_a_listener_may_close_the_engine():
    engine, seen = Engine(omni=None), queue.Queue()

    def listen(event):
        seen.put(event)
        if isinstance(event, Progress):
            engine.close()

    engine.submit(good, listen)
    assert ended(seen).state is State.CANCELLED
    engine.close()
    with pytest.raises(StoppedError, match=SHUTTING_DOWN):
        engine.submit(good, seen.put)


def in_order(heard: list) -> bool:
    """Queued, with places that only get nearer, then Started, Progress and one Finished."""
    rank = {Queued: 0, Started: 1, Progress: 2, Finished: 3}
    ranks = [rank[type(event)] for event in heard]
    values = [event.value for event in heard if isinstance(event, Progress)]
    places = [event.ahead for event in heard if isinstance(event, Queued)]
    return (
        ranks == sorted(ranks)
        and ranks.count(3) == 1
        and values == sorted(values)
        and places == sorted(places, reverse=True)
    )


FAULTS = st.sampled_from(
    ["none", "cancelled", "preemptible", *WORK_PLACES, "Queued", "Started", "Progress", "Finished"]
)


@given(st.lists(st.tuples(FAULTS, st.sampled_from(ERRORS)), min_size=1, max_size=8), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_any_mixture_from_many_threads_ends_every_job_once_and_in_order(faults, threads):
    engine = Engine(omni=None, max_queue=100)
    heard: dict[int, list] = {i: [] for i in range(len(faults))}
    jobs = {}

    def submit(mine):
        for i, (fault, error) in mine:

            def listen(event, i=i, fault=fault, error=error):
                heard[i].append(event)
                if type(event).__name__ == fault:
                    raise error

            work = faulty(fault, error) if fault in WORK_PLACES else good
            jobs[i] = engine.submit(work, listen, preemptible=fault == "preemptible")
            if fault == "cancelled":
                jobs[i].cancel()

    numbered = list(enumerate(faults))
    workers = [threading.Thread(target=submit, args=(numbered[k::threads],)) for k in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=SOON_S)
    try:
        assert answers(engine)
        for i, (fault, _) in numbered:
            assert jobs[i].ended is not None
            if fault in ("Queued", "Started", "Progress"):
                assert isinstance(heard[i][-1], (Finished, Queued, Started, Progress))
            else:
                assert in_order(heard[i]), heard[i]
                assert heard[i][-1] == jobs[i].ended
            if fault == "none":
                assert jobs[i].ended == Finished(State.DONE)
    finally:
        engine.close()


def test_closing_ends_every_waiting_job_at_once_with_a_sentence(monkeypatch):
    monkeypatch.setattr("app.engine.engine.CLOSING_S", 0.05)
    engine, release = Engine(omni=None), threading.Event()

    def stuck(_):
        yield 1
        release.wait(SOON_S)
        yield 2

    boxes = [queue.Queue() for _ in range(4)]
    engine.submit(stuck, boxes[0].put)
    while not isinstance(boxes[0].get(timeout=SOON_S), Progress):
        pass
    for box in boxes[1:]:
        engine.submit(good, box.put)
    engine.close()  # the step in which the first is stuck has not come back yet
    for box in boxes:
        last = ended(box)
        assert last.state is State.CANCELLED
        assert str(last.error) == SHUTTING_DOWN
    release.set()
    engine.close()
    assert all(box.empty() for box in boxes), "nothing comes after the end"
    with pytest.raises(StoppedError, match=SHUTTING_DOWN):
        engine.submit(good, print)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_thread_that_ends_all_the_same_says_so(monkeypatch, error):
    engine, running = Engine(omni=None), queue.Queue()
    release = threading.Event()

    def blocking(_):
        yield release.wait(SOON_S)

    def dies(_):
        raise error

    engine.submit(blocking, running.put)
    while not isinstance(running.get(timeout=SOON_S), Started):
        pass
    boxes = [queue.Queue() for _ in range(2)]
    for box in boxes:
        engine.submit(good, box.put)
    monkeypatch.setattr(Job, "turn", dies)
    assert engine.healthy
    release.set()
    for box in boxes:
        last = ended(box)
        assert last.state is State.FAILED
        assert str(last.error) == STOPPED
    assert not engine.healthy
    assert engine.trouble == STOPPED
    with pytest.raises(StoppedError, match="restart"):
        engine.submit(good, print)

    engine.close()


def test_a_reader_whose_engine_vanishes_is_told(monkeypatch):
    """Even a thread that ended without a word is noticed, at the next heartbeat."""
    monkeypatch.setattr("app.engine.tickets.HEARTBEAT_S", 0.01)
    engine = Engine(omni=None)
    release = threading.Event()

    def stuck(_):
        yield release.wait(SOON_S)

    async def last():
        async with aclosing(stream(tickets_of(engine), stuck)) as events:
            await anext(events)
            monkeypatch.setattr(Engine, "alive", False)
            *_, event = [event async for event in events]
            return event

    assert str(asyncio.run(last()).error) == STOPPED
    release.set()


def test_a_place_that_gets_free_is_told(engine):
    release = threading.Event()

    def blocking(_):
        yield release.wait(SOON_S)

    boxes = [queue.Queue() for _ in range(4)]
    jobs = [engine.submit(blocking if i == 0 else good, box.put) for i, box in enumerate(boxes)]
    jobs[1].cancel()
    assert ended(boxes[1]).state is State.CANCELLED, "at once, not when its turn comes"
    places = itertools.takewhile(lambda e: e != Queued(2), iter(lambda: boxes[3].get(timeout=SOON_S), None))
    assert all(isinstance(event, Queued) for event in places)
    release.set()
    assert ended(boxes[3]) == Finished(State.DONE)
