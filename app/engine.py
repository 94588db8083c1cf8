"""The engine owns the one loaded model and runs one job at a time, in its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from app.errors import BusyError
from app.jobs import Ended, Event, Job, State, Waiting

if TYPE_CHECKING:
    from core import HaploOmni

HEARTBEAT_S = 0.5


class Engine:
    """Jobs in, events out; knows nothing of the page.

    Args:
        omni: the loaded model; jobs get it, nothing else touches it.
        max_queue: waiting jobs before :class:`BusyError`.
    """

    def __init__(self, omni: HaploOmni, max_queue: int = 16) -> None:
        self.omni, self.max_queue = omni, max_queue
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[HaploOmni], Iterator[Any]], listen: Callable[[Event], object], gives_way: bool = False
    ) -> Job:
        """Queue ``work(omni)``; ``listen`` is called from the engine's thread.

        A job that ``gives_way`` is cancelled as soon as another is submitted.

        Raises:
            BusyError: the queue is full.
        """
        job = Job(lambda: work(self.omni), listen, gives_way)
        with self._wake:
            if self._closed:
                raise BusyError("The program is shutting down.")
            for other in (self._running, *self._waiting):
                if other is not None and other.gives_way:
                    other.cancel()
            self._drop_cancelled()
            if len(self._waiting) >= self.max_queue:
                raise BusyError(f"{len(self._waiting)} jobs are waiting already; please try again in a minute.")
            self._waiting.append(job)
            self._tell_positions()
            self._wake.notify()
        return job

    async def stream(self, work: Callable[[HaploOmni], Iterator[Any]]) -> AsyncGenerator[Event | None, None]:
        """Run a job and relay its events into an async handler; None is a heartbeat.

        However the handler ends (stop, error, a closed browser), the job is cancelled and frees the engine within a
        step. Read it inside ``contextlib.aclosing``. A full queue is a failed job like any other.
        """
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()
        try:
            job = self.submit(work, lambda event: loop.call_soon_threadsafe(events.put_nowait, event))
        except BusyError as error:
            yield Ended(State.FAILED, error)
            return
        getting: asyncio.Task[Event] | None = None
        try:
            while True:
                # asyncio.wait, since before Python 3.12 asyncio.wait_for forgets a cancel that meets an event
                getting = getting or asyncio.create_task(events.get())
                done, _ = await asyncio.wait({getting}, timeout=HEARTBEAT_S)
                if not done:
                    yield None
                    continue
                event, getting = getting.result(), None
                yield event
                if isinstance(event, Ended):
                    return
        finally:
            job.cancel()
            if getting is not None:
                getting.cancel()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._running is not None

    def close(self) -> None:
        """Stop the running job at its next step and end the thread."""
        with self._wake:
            self._closed = True
            for job in self._waiting:
                job.cancel()
            if self._running is not None:
                self._running.cancel()
            self._wake.notify()
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while True:
            with self._wake:
                self._running = None
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if not self._waiting:
                    return
                job = self._running = self._waiting.popleft()
                self._tell_positions()
            try:
                if job.cancelled:
                    job.state = State.CANCELLED
                    job.listen(Ended(State.CANCELLED))
                else:
                    job.run()
            except RuntimeError:  # the listener's event loop is gone with its browser
                job.cancel()

    def _drop_cancelled(self) -> None:
        """Jobs stopped while waiting leave the line, so that they take nobody's place."""
        gone = [job for job in self._waiting if job.cancelled]
        self._waiting = deque(job for job in self._waiting if not job.cancelled)
        for job in gone:
            job.state = State.CANCELLED
            with suppress(RuntimeError):  # the listener's event loop is gone with its browser
                job.listen(Ended(State.CANCELLED))

    def _tell_positions(self) -> None:
        self._drop_cancelled()
        ahead = 1 if self._running is not None else 0
        for place, job in enumerate(self._waiting):
            try:
                job.listen(Waiting(place + ahead))
            except RuntimeError:
                job.cancel()
