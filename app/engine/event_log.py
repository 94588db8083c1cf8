"""What happened to a job, numbered, so that a reader can go on where it left off."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.engine.jobs import Event, Finished, Passing, Progress, Queued, Started


class EventLog:
    """Events of one job in their order; of passing ones only the newest of its type. Any thread may use it.

    Readers are told that something came, not what: each asks for what it has not seen.
    Of a mere place in the line they are not told: with every job that ends all places change, and fifty who
    wait would be woken fifty times; they find it at their next heartbeat.
    """

    def __init__(self) -> None:
        self._numbered: list[tuple[int, Event]] = []
        self._count = 0
        self._tell: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @property
    def ended(self) -> Finished | None:
        """The last event, once it has come."""
        with self._lock:
            last = self._numbered[-1][1] if self._numbered else None
        return last if isinstance(last, Finished) else None

    def add(self, event: Event) -> None:
        """Number an event and tell all readers that there is one."""
        kind = passing_kind(event)
        with self._lock:
            if kind is not None:
                self._numbered = [item for item in self._numbered if passing_kind(item[1]) is not kind]
            self._count += 1
            self._numbered.append((self._count, event))
            told = [] if isinstance(event, Queued) else list(self._tell)
        for tell in told:
            try:
                tell()
            except RuntimeError:  # its event loop is gone, and the reader with it
                self.leave(tell)

    def after(self, number: int) -> list[tuple[int, Event]]:
        """All events with greater numbers, each with its own; numbers begin at 1."""
        with self._lock:
            return [item for item in self._numbered if item[0] > number]

    def join(self, tell: Callable[[], object]) -> None:
        """Call ``tell`` after each event, from whatever thread it comes."""
        with self._lock:
            self._tell.append(tell)

    def leave(self, tell: Callable[[], object]) -> bool:
        """Call it no more; whether somebody else still reads."""
        with self._lock:
            if tell in self._tell:
                self._tell.remove(tell)
            return bool(self._tell)

    @property
    def is_read(self) -> bool:
        """Whether somebody reads."""
        with self._lock:
            return bool(self._tell)


def passing_kind(event: Event) -> type | None:
    """The type of which only the newest counts; None for what every reader must get."""
    if isinstance(event, (Queued, Started)):
        return Queued  # who has started stands in no line
    if isinstance(event, Progress) and isinstance(event.value, Passing):
        return type(event.value)
    return None
