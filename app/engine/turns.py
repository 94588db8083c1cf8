"""Whose turn it is: shares of the model's time among the jobs that run, by measured seconds.

A turn is one step of one job. Lanes share the time by their weights, the visitors in a lane share its part
evenly, and a visitor's own jobs follow one another.
This is start-time fair queueing (Goyal, Vin and Cheng 1996) with a step as the packet.
A step of two seconds and one of twenty milliseconds are treated alike: what counts is the time they took.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)


class Lane(Enum):
    """What kind of work a job is; the value is its weight beside the others.

    A person waits for every word of a chat and looks at a clip now and then: chats have twice a clip's share.
    """

    CHAT = 2.0
    CLIP = 1.0


class FairClock(Generic[Key]):
    """Virtual time of several sharers: the seconds of each over its weight."""

    def __init__(self) -> None:
        self._used: dict[Key, float] = {}
        self._now = 0.0

    def join(self, key: Key) -> None:
        """Who comes begins now: nobody saves up while away, and nobody owes for having been alone."""
        self._used[key] = self._now

    def leave(self, key: Key) -> None:
        del self._used[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._used

    def least(self, among: Container[Key]) -> Key:
        """Who of these has had least; of equals the one who came first."""
        return min((key for key in self._used if key in among), key=self._used.__getitem__)

    def charge(self, key: Key, seconds: float, weight: float = 1.0) -> None:
        """``key`` was served for so long."""
        self._now = max(self._now, self._used[key])
        self._used[key] += seconds / weight


@dataclass
class _Running(Generic[Job]):
    """One lane: its jobs in the order they came, each with its visitor."""

    owners: FairClock[str] = field(default_factory=FairClock)
    jobs: dict[Job, str] = field(default_factory=dict)


class Turns(Generic[Job]):
    """The jobs that run and the time each has had. Not thread-safe."""

    def __init__(self) -> None:
        self._clock: FairClock[Lane] = FairClock()
        self._lanes: dict[Lane, _Running[Job]] = {lane: _Running() for lane in Lane}

    def __len__(self) -> int:
        return sum(len(lane.jobs) for lane in self._lanes.values())

    @property
    def jobs(self) -> list[Job]:
        """All jobs that run."""
        return [job for running in self._lanes.values() for job in running.jobs]

    def running(self, lane: Lane) -> int:
        """How many jobs of a lane run."""
        return len(self._lanes[lane].jobs)

    def add(self, job: Job, lane: Lane, owner: str) -> None:
        """A job of the visitor ``owner`` begins to run."""
        running = self._lanes[lane]
        if lane not in self._clock:
            self._clock.join(lane)
        if owner not in running.owners:
            running.owners.join(owner)
        running.jobs[job] = owner

    def remove(self, job: Job) -> None:
        """A job runs no more."""
        lane = self._lane_of(job)
        running = self._lanes[lane]
        owner = running.jobs.pop(job)
        if owner not in running.jobs.values():
            running.owners.leave(owner)
        if not running.jobs:
            self._clock.leave(lane)

    def next(self, wanted: Callable[[Job], bool] = lambda _: True) -> Job | None:
        """The job whose turn it is, of those that are wanted; None where there is none.

        It is the oldest job of the visitor who has had least, in the lane that has had least for its weight.
        """
        able = {lane: [job for job in running.jobs if wanted(job)] for lane, running in self._lanes.items()}
        lanes = {lane for lane, jobs in able.items() if jobs}
        if not lanes:
            return None
        lane = self._clock.least(lanes)
        running = self._lanes[lane]
        owner = running.owners.least({running.jobs[job] for job in able[lane]})
        return next(job for job in able[lane] if running.jobs[job] == owner)

    def charge(self, job: Job, seconds: float) -> None:
        """A job's turn took so many seconds."""
        lane = self._lane_of(job)
        running = self._lanes[lane]
        self._clock.charge(lane, seconds, lane.value)
        running.owners.charge(running.jobs[job], seconds)

    def _lane_of(self, job: Job) -> Lane:
        return next(lane for lane, running in self._lanes.items() if job in running.jobs)
