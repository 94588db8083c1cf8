"""The engine owns the one loaded model and gives its jobs turns of one step, in its own thread."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from app.engine.jobs import Event, Finished, Job, Queued, State
from app.engine.turns import Lane, Turns
from app.engine.watchdog import Watchdog
from core.errors import BusyError, RequestError, StoppedError

if TYPE_CHECKING:
    from core import HaploOmni

logger = logging.getLogger(__name__)
# how many run at once: every chat holds a cache, and a second clip would only slow the first
PLACES = {Lane.CHAT: 4, Lane.CLIP: 1}
CLOSING_S = 3.0  # how long closing waits for the running step
SHUTTING_DOWN = "The program is shutting down."
STOPPED = "The model has stopped working; please restart the program."


class Engine:
    """Jobs in, events out; knows nothing of the page.

    Whatever a job's work, its closing or its listener raises ends that job alone.
    Listeners are called without a lock, so that they may submit and cancel.

    Args:
        omni: the loaded model; jobs get it, nothing else touches it.
        max_queue: waiting jobs before :class:`BusyError`.
        max_per_visitor: jobs of one owner, running and waiting, before it.
        places: how many jobs of each lane run together; the others wait.
        max_job_s: of the model's time for one job, in seconds.
    """

    def __init__(
        self,
        omni: HaploOmni,
        max_queue: int = 16,
        max_per_visitor: int = 4,
        places: Mapping[Lane, int] | None = None,
        max_job_s: float = math.inf,
    ) -> None:
        self.omni = omni
        self.max_queue = max_queue
        self.max_per_visitor = max_per_visitor
        self.places = {**PLACES, **(places or {})}
        self.max_job_s = max_job_s
        self._waiting: list[Job] = []
        self._turns: Turns[Job] = Turns()
        self._wake = threading.Condition()
        self._closed = False
        self._trouble = ""
        self._hanging = ""
        self._turn: tuple[Job, float] | None = None
        self._watchdog = Watchdog(self)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Callable[[HaploOmni], Iterator[Any]],
        on_event: Callable[[Event], object],
        preemptible: bool = False,
        lane: Lane = Lane.CLIP,
        owner: str = "",
        attended: bool = True,
        expected_s: float | None = None,
        expected_step_s: float | None = None,
    ) -> Job:
        """Queue ``work(omni)``; ``on_event`` gets its events in order, from one thread at a time.

        Its turns come as :class:`Turns` shares them out.

        Args:
            preemptible: it is cancelled as soon as another is submitted.
            lane, owner: with whom it shares the time, and whose it is.
            attended: somebody waits for it already; see :meth:`attend`.
            expected_s, expected_step_s: seconds that it and one of its steps take alone, where that is known.

        Raises:
            BusyError: the queue is full, or the owner has enough in it.
            StoppedError: the engine runs no jobs any more.
        """
        self._refuse_when_stopped()
        job = Job(
            lambda: work(self.omni),
            on_event,
            preemptible,
            lane,
            owner,
            self._leave,
            attended=attended,
            expected_s=expected_s,
            expected_step_s=expected_step_s,
        )
        with self._wake:
            others = [*self._turns.jobs, *self._waiting]
        for other in others:
            if other.preemptible:
                other.cancel()
        self._make_place(owner)
        with self._wake:
            self._refuse_when_stopped()
            self._refuse_when_full()
            self._refuse_who_has_enough(owner)
            job.rank = sum(other.lane is lane for other in self._of_owner(owner))
            self._waiting.append(job)
            told = self._post_places()
            self._wake.notify()
        deliver(told)
        return job

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return len(self._turns) > 0

    @property
    def waiting(self) -> int:
        """How many jobs stand in the queue."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread that runs the jobs is there."""
        return self._thread.is_alive()

    @property
    def trouble(self) -> str:
        """Why no job will be run any more, in a sentence; empty while all is well."""
        return self._trouble or ("" if self.alive else STOPPED)

    @property
    def hanging(self) -> str:
        """What is wrong with the step that is running, in a sentence; empty while nothing is."""
        return self._hanging

    @property
    def healthy(self) -> bool:
        """Whether jobs are taken and will be run."""
        return not self.trouble and not self.hanging

    def current_turn(self) -> tuple[Job, float] | None:
        """The job whose turn it is and when the turn began, in seconds of the monotonic clock."""
        return self._turn

    def hangs(self, job: Job, sentence: str) -> None:
        """The turn of ``job`` does not come back: its reader is told, and it ends if it ever returns."""
        if self._hanging:
            return
        self._hanging = sentence
        logger.error("%s", sentence)
        job.cancel()
        job.tell(Finished(State.FAILED, StoppedError(sentence)))

    def attend(self, job: Job, attended: bool) -> None:
        """Somebody waits for this job, or nobody does any more."""
        with self._wake:
            job.attended = attended
            told = self._post_places() if job in self._waiting else []
            self._wake.notify()
        deliver(told)

    def wait_of(self, job: Job) -> Queued:
        """The place of a waiting job in the line, and how long that will take from now."""
        with self._wake:
            line = self._line(job.lane)
            return self._place(job.lane, line.index(job)) if job in line else Queued(0, 0.0)

    def close(self) -> None:
        """Tell everybody that their jobs end, end the running ones at their next step, then the thread."""
        with self._wake:
            self._closed = True
            self._trouble = self._trouble or SHUTTING_DOWN
            ending = list(self._waiting)
            self._waiting.clear()
            running = self._turns.jobs
            self._wake.notify()
        self._watchdog.close()
        stopped = Finished(State.CANCELLED, StoppedError(SHUTTING_DOWN))
        for job in (*ending, *running):
            job.post(stopped)
            job.cancel()
        deliver((*ending, *running))
        if threading.current_thread() is self._thread:
            return  # a listener closes the engine: its job ends when the listener returns
        self._thread.join(timeout=CLOSING_S)

    def _work(self) -> None:
        """The thread: one turn after another until closed. Jobs raise nothing: what arrives here is ours."""
        try:
            while self._one_turn():
                pass
        except BaseException as error:
            logger.critical("the engine's thread ended", exc_info=error)
        self._watchdog.close()
        with self._wake:
            self._closed = True
            self._trouble = self._trouble or STOPPED
            ending = [*self._turns.jobs, *self._waiting]
            self._turns = Turns()
            self._waiting.clear()
        for job in ending:
            job.post(Finished(State.FAILED, StoppedError(self.trouble)))
        deliver(ending)

    def _one_turn(self) -> bool:
        """Wait for work and give one turn; False once closed.

        Its own function, so that no ended job is held while waiting.
        """
        with self._wake:
            told = self._admit()
            while not len(self._turns) and not self._closed:
                self._wake.wait()
                told = self._admit()
            job = self._next()
        deliver(told)
        if job is None:
            return False
        began_s = time.monotonic()
        self._turn = (job, began_s)
        goes_on = job.turn()
        self._turn = None
        self._hanging = ""
        seconds = time.monotonic() - began_s
        job.charge(seconds)
        if goes_on and job.used_s > self.max_job_s:
            self._end_overdue(job)
        with self._wake:
            self._turns.charge(job, seconds)
            if not goes_on:
                self._turns.remove(job)
        return True

    def _end_overdue(self, job: Job) -> None:
        """A job that has had its time is told so, and closed at its next turn."""
        job.tell(
            Finished(
                State.FAILED,
                RequestError(
                    f"This took more than the {self.max_job_s / 60:g} minutes that one job may take here; "
                    "choose fewer steps, fewer frames or a smaller size."
                ),
            )
        )
        job.cancel()

    def _next(self) -> Job | None:
        """Whose turn it is; who was asked to stop does so first, which takes no time."""
        stopping = [job for job in self._turns.jobs if job.cancelled]
        if stopping:
            return stopping[0]
        # for whom nobody waits gets what the others leave
        return self._turns.next(lambda job: job.attended) or self._turns.next()

    def _admit(self) -> list[Job]:
        """Let waiting jobs run as far as there are places; returns who must be told of a new place.

        A job that nobody waits for holds no place against one that somebody waits for.
        """
        admitted = False
        for lane in self.places:
            line = self._line(lane)
            attended = [job for job in line if job.attended]
            others = [job for job in line if not job.attended]
            free = self._free(lane, attended_only=True)
            for job in [*attended[:free], *others[: self._free(lane) - len(attended[:free])]]:
                self._waiting.remove(job)
                self._turns.add(job, lane, job.owner or f"job {id(job)}")
                admitted = True
        return self._post_places() if admitted else []

    def _free(self, lane: Lane, attended_only: bool = False) -> int:
        """How many places of a lane are free; those of jobs that nobody waits for may count as free."""
        running = [job for job in self._turns.jobs if job.lane is lane]
        held = sum(job.attended or not attended_only for job in running)
        return max(0, self.places[lane] - held)

    def _line(self, lane: Lane) -> list[Job]:
        """Who waits in a lane, in the order of their turns: nobody's second job goes before others' first.

        Jobs that nobody waits for come last.
        """
        waiting = (job for job in self._waiting if job.lane is lane)
        return sorted(waiting, key=lambda job: (not job.attended, job.rank))

    def _of_owner(self, owner: str) -> list[Job]:
        """A visitor's jobs, running and waiting; none of nobody's."""
        return [job for job in (*self._turns.jobs, *self._waiting) if owner and job.owner == owner]

    def _make_place(self, owner: str) -> None:
        """In a full line one that nobody waits for gives up its place to who may have one."""
        with self._wake:
            self._refuse_who_has_enough(owner)
            given_up = [job for job in self._waiting if not job.attended]
            full = len(self._waiting) >= self.max_queue
        if full and given_up:
            given_up[0].cancel()

    def _refuse_when_stopped(self) -> None:
        if self.trouble:
            raise StoppedError(self.trouble)

    def _refuse_when_full(self) -> None:
        if len(self._waiting) >= self.max_queue:
            raise BusyError(f"{len(self._waiting)} jobs are waiting already; please try again in a minute.")

    def _refuse_who_has_enough(self, owner: str) -> None:
        own = len(self._of_owner(owner))
        if own >= self.max_per_visitor:
            raise BusyError(
                f"{own} of your jobs are running or waiting already; stop one, or wait until one has ended."
            )

    def _leave(self, job: Job) -> None:
        """A job cancelled while waiting leaves the line at once, so that it takes nobody's place."""
        with self._wake:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
            for other in self._of_owner(job.owner):
                other.rank -= other.lane is job.lane and other.rank > job.rank
            job.post(Finished(State.CANCELLED, job.deafened))
            told = self._post_places()
        deliver([job, *told])

    def _post_places(self) -> list[Job]:
        """Post everybody's place in the line; the caller delivers once the lock is released."""
        for lane in self.places:
            for number, job in enumerate(self._line(lane)):
                job.post(self._place(lane, number))
        return list(self._waiting)

    def _place(self, lane: Lane, number: int) -> Queued:
        """What stands before the ``number``-th of a lane's line, and how long it will take."""
        attended = self._line(lane)[number].attended
        running = [job for job in self._turns.jobs if job.lane is lane and (job.attended or not attended)]
        ahead = max(0, len(running) - self.places[lane] + 1 + number)
        remaining = [job.remaining_s for job in (*running, *self._line(lane)[:number])]
        known = sorted(seconds for seconds in remaining if seconds is not None)
        if len(known) < len(remaining):
            return Queued(ahead)
        # the other lanes take their shares meanwhile
        shares = sum(other.value for other in Lane if other is lane or self._turns.running(other))
        return Queued(ahead, sum(known[:ahead]) * shares / lane.value)


def deliver(jobs: Iterable[Job]) -> None:
    """Tell the listeners of all these jobs what is in their lines."""
    for job in jobs:
        job.deliver()
