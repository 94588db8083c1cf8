"""A job: what it does, how far it is, and how to stop it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from app.engine.turns import Lane

logger = logging.getLogger(__name__)


class State(Enum):
    """A job's life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Passing:
    """Base of values of which only the newest matters, such as previews: nobody is sent a backlog of them."""


@dataclass(frozen=True)
class Queued:
    """The job stands in the queue; ``ahead`` others must end before its turn comes.

    ``wait_s`` is how long that will take at the speeds measured so far; None where nobody knows.
    """

    ahead: int
    wait_s: float | None = None


@dataclass(frozen=True)
class Started:
    """The job's turn has come; its first value may take a while."""


@dataclass(frozen=True)
class Progress:
    """One value the work produced, ``elapsed_s`` after the job began to run."""

    value: Any
    elapsed_s: float


@dataclass(frozen=True)
class Finished:
    """The last event: how it ended and, where something was raised, what."""

    state: State
    error: BaseException | None = None


Event = Queued | Started | Progress | Finished


def _nobody(_: Job) -> None:
    """Nobody wants to know that a job was cancelled."""


@dataclass(eq=False)
class Job:
    """One piece of work and the line of its events.

    Any thread may :meth:`post` an event, also under a lock; :meth:`deliver` tells the listener, under none.
    One thread at a time delivers, so the listener hears every event once and in the order of posting,
    the last of them :class:`Finished`.
    A listener that raises hears no more and its job is cancelled.

    Args:
        work: gives an iterator whose items are steps.
        on_event: receives every event.
        preemptible: it ends at its next step when any other job comes.
        lane: with what work it shares the time.
        owner: whose it is; a job of nobody shares with all others as if it were its owner's only one.
        on_cancel: told once that the job was asked to stop.
        rank: how many of its owner's jobs are there before it; lower ones go first.
        attended: somebody waits for it, or it was asked to be finished; others give way to such jobs.
        expected_s: how long it will take alone; None where nobody knows.
        expected_step_s: how long one of its steps will take, likewise.

    Attributes:
        ended: how it ended, once it has.
        used_s: the time that its turns took.
        turns: how many it had.
    """

    work: Callable[[], Iterator[Any]]
    on_event: Callable[[Event], object]
    preemptible: bool = False
    lane: Lane = Lane.CLIP
    owner: str = ""
    on_cancel: Callable[[Job], object] = _nobody
    rank: int = 0
    attended: bool = True
    expected_s: float | None = None
    expected_step_s: float | None = None
    used_s: float = 0.0
    turns: int = 0
    state: State = State.QUEUED
    ended: Finished | None = None
    started_s: float = 0.0
    _steps: Iterator[Any] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _events: deque[Event] = field(default_factory=deque)
    _telling: bool = False
    _deaf: BaseException | None = None

    def cancel(self) -> None:
        """Ask the job to stop: at once while it waits, else before its next step."""
        with self._lock:
            first = not self._stop.is_set()
            self._stop.set()
        if first:
            self.on_cancel(self)

    @property
    def cancelled(self) -> bool:
        return self._stop.is_set()

    @property
    def deafened(self) -> BaseException | None:
        """What the listener raised, if it did."""
        return self._deaf

    @property
    def remaining_s(self) -> float | None:
        """How long it will still take alone; None where nobody knows, as of one that takes longer."""
        if self.expected_s is None or self.used_s > self.expected_s:
            return None
        return self.expected_s - self.used_s

    def charge(self, seconds: float) -> None:
        """A turn took so long."""
        self.used_s += seconds
        self.turns += 1

    def post(self, event: Event) -> None:
        """Put an event in the line; after :class:`Finished` nothing is added."""
        with self._lock:
            if self.ended is not None:
                return
            if isinstance(event, Finished):
                self.ended = event
                self.state = event.state
            self._events.append(event)

    def deliver(self) -> None:
        """Tell the listener what is in the line, unless somebody is doing so already."""
        while True:
            with self._lock:
                if self._telling or not self._events:
                    return
                event = self._events.popleft()
                if self._deaf is not None:
                    continue
                self._telling = True
            try:
                self.on_event(event)
            except BaseException as error:
                # a RuntimeError is the everyday case: the listener's event loop is gone with its browser
                logger.debug("a listener raised", exc_info=error)
                self._deaf = error
            finally:
                self._telling = False
            if self._deaf is not None:
                self.cancel()

    def tell(self, event: Event) -> None:
        """Put an event in the line and tell the listener at once."""
        self.post(event)
        self.deliver()

    def turn(self) -> bool:
        """One step, or the end where the job is asked to stop; raises nothing.

        All turns are given by one thread, which closes the iterator too.

        Returns:
            Whether another turn is wanted.
        """
        error: BaseException | None = None
        done = False
        try:
            done = self._step()
        except BaseException as caught:  # SystemExit and the like end this job, never the thread of all jobs
            error = caught
        if error is None and not done and not self.cancelled:
            return True
        try:
            self._close()
        except BaseException as caught:
            error = error or caught
        if error is not None:
            ended = Finished(State.FAILED, error)
        elif self.cancelled:
            ended = Finished(State.CANCELLED, self._deaf)
        else:
            ended = Finished(State.DONE)
        self.tell(ended)
        return False

    def _step(self) -> bool:
        """Begin if that is still to be done, then take one step; whether it was the last."""
        if self.state is State.QUEUED:
            self.state = State.RUNNING
            self.started_s = time.monotonic()
            if not self.cancelled:
                self.tell(Started())
        if self.cancelled:
            return False
        if self._steps is None:
            self._steps = iter(self.work())
        try:
            value = next(self._steps)
        except StopIteration:
            return True
        self.tell(Progress(value, time.monotonic() - self.started_s))
        return False

    def _close(self) -> None:
        """Let the work clean up behind itself."""
        steps, self._steps = self._steps, None
        close = getattr(steps, "close", None)
        if close is not None:
            close()
