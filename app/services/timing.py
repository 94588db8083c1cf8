"""How long the steps of a job take themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")


def timed(steps: Iterator[Item]) -> Iterator[tuple[Item, float]]:
    """Every step with the seconds that it took itself, whatever others did between two steps."""
    while True:
        began_s = time.monotonic()
        try:
            item = next(steps)
        except StopIteration:
            return
        yield item, time.monotonic() - began_s
