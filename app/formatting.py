"""Numbers and waits as people say them."""

from __future__ import annotations

import time

SLOW_S = 3.0  # from when on people are told how long something has been going on


def duration(seconds: float) -> str:
    """ "8 s" or "2 min 5 s"."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def elapsed_label(what: str, started_s: float) -> str:
    """ "Reading…" at first, then "Reading… 8 s"; ``started_s`` is of ``time.monotonic``."""
    passed_s = time.monotonic() - started_s
    return f"{what}… {duration(passed_s)}" if passed_s >= SLOW_S else f"{what}…"


def plural(count: int, noun: str) -> str:
    """ "1 frame" or "9 frames"."""
    return f"{count} {noun}{'s' * (count != 1)}"
