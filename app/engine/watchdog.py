"""Notices a step that does not come back, such as one in a library that hangs."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from app.engine.jobs import Job

TIMES = 20.0  # how many times the expected a step may take
AT_LEAST_S = 120.0  # a busy machine is no hanging one
UNKNOWN_S = 3600.0  # where nobody knows what to expect
LOOK_S = 5.0


class Watched(Protocol):
    """What gives turns, and takes the word that one hangs."""

    def current_turn(self) -> tuple[Job, float] | None:
        """The job whose turn it is and when it began, in seconds of the monotonic clock."""

    def hangs(self, job: Job, sentence: str) -> None:
        """The turn of ``job`` takes far too long."""


def allowed_s(job: Job) -> float:
    """How long a step of this job may take: twenty times what was expected or measured, and two minutes."""
    known = [job.used_s / job.turns] if job.turns else []
    if job.expected_step_s is not None:
        known.append(job.expected_step_s)
    return max(AT_LEAST_S, TIMES * max(known)) if known else UNKNOWN_S


class Watchdog:
    """Looks at the current turn every few seconds, in a thread of its own.

    Args:
        watched: the engine.
        look_s: how often it looks, in seconds.
    """

    def __init__(self, watched: Watched, look_s: float = LOOK_S) -> None:
        self._watched = watched
        self._look_s = look_s
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def look(self) -> None:
        """Tell of a turn that takes too long."""
        turn = self._watched.current_turn()
        if turn is None:
            return
        job, began_s = turn
        seconds = time.monotonic() - began_s
        allowed = allowed_s(job)
        if seconds > allowed:
            self._watched.hangs(
                job,
                f"One step has taken {seconds:.0f} s, where at most {allowed:.0f} s were expected; "
                "it was given up, and others wait until it comes back.",
            )

    def _watch(self) -> None:
        while not self._ended.wait(self._look_s):
            self.look()
