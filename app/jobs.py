"""A job's ticket: what it does, how far it is, and how to stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class State(Enum):
    """A job's life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class Waiting:
    """The job stands in the queue behind ``ahead`` others (the running one counted)."""

    ahead: int

    def __str__(self) -> str:
        return f"Waiting for {self.ahead} other job{'s' * (self.ahead != 1)}…"


@dataclass(frozen=True)
class Started:
    """The job's turn has come; its first value may take a while."""


@dataclass(frozen=True)
class Progress:
    """One value the work produced, ``elapsed_s`` after the job began to run."""

    value: Any
    elapsed_s: float


@dataclass(frozen=True)
class Ended:
    """The last event: how it ended and, after a failure, why."""

    state: State
    error: BaseException | None = None


Event = Waiting | Started | Progress | Ended


@dataclass(eq=False)
class Job:
    """One piece of work.

    Args:
        work: gives an iterator whose items are steps.
        listen: receives every event.
        gives_way: it ends at its next step when any other job comes.
    """

    work: Callable[[], Iterator[Any]]
    listen: Callable[[Event], object]
    gives_way: bool = False
    state: State = State.QUEUED
    started_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ask the job to stop; it does so before its next step."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        return self._stop.is_set()

    def run(self) -> None:
        """Work to the end, to a cancel or to an error; the iterator is closed in this same thread."""
        self.state, self.started_s = State.RUNNING, time.monotonic()
        error: BaseException | None = None
        try:
            self.listen(Started())
            steps = self.work()
            try:
                for value in steps:
                    self.listen(Progress(value, time.monotonic() - self.started_s))
                    if self.cancelled:
                        break
            finally:
                close = getattr(steps, "close", None)
                if close is not None:
                    close()
        except BaseException as caught:
            error = caught
        self.state = State.FAILED if error else State.CANCELLED if self.cancelled else State.DONE
        self.listen(Ended(self.state, error))
