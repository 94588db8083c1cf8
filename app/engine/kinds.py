"""What the engine must know of a kind of job: how it runs, and how it is written down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from app.engine.turns import Lane


class Kind(Protocol):
    """One kind of job: how it runs, and how it is written down. Jobs are plain picklable data."""

    name: str
    lane: Lane

    def work(self, omni: Any, job: Any, /) -> Iterator[Any]:
        """The steps of a job."""

    def expected_s(self, job: Any, /) -> tuple[float | None, float | None]:
        """Seconds that a job and one of its steps take alone; None where nobody knows."""

    def to_record(self, job: Any, /) -> dict[str, Any]:
        """A job as plain JSON values."""

    def from_record(self, record: dict[str, Any], /) -> Any:
        """The job of :meth:`to_record`."""

    def result_record(self, values: list[Any], /) -> Any:
        """What is left of a job's values, as plain JSON values."""

    def from_result(self, job: Any, record: Any, /) -> list[Any]:
        """The values that a reader of the ended job gets.

        Raises:
            TicketError: its result is gone.
        """
