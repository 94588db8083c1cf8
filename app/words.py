"""Numbers as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """ "8 s" or "2 min 5 s"."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
