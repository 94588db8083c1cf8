"""Tickets on disk, one JSON file each: what a restarted program knows of the one before."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """A ticket as plain JSON values.

    Args:
        key: of its id, which stands nowhere: whoever reads the file cannot follow the ticket.
        owner: the owner's digest, likewise.
        kind: the name of its kind.
        job: what was asked.
        state: how it ended; empty while it has not.
        error: the sentence, where it failed.
        result: what came of it.
        written: when, in seconds since 1970.
    """

    key: str
    owner: str
    kind: str
    job: dict[str, Any]
    state: str
    error: str
    result: Any
    written: float


class TicketStore:
    """A folder of tickets. What cannot be written is lost at a restart, and costs nothing before.

    Args:
        folder: made where there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, record: Record) -> None:
        """Keep a ticket, in the place of what was kept of it before."""
        path = self._path(record.key)
        part = path.with_suffix(".part")
        try:
            # whole or not at all, whenever the program ends
            part.write_text(json.dumps(asdict(record)), encoding="utf-8")
            os.replace(part, path)
        except OSError as error:
            logger.warning("a ticket could not be written down: %s", error)

    def remove(self, key: str) -> None:
        """Keep it no more."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("a ticket could not be removed: %s", error)

    def read(self, kind: str) -> Iterator[Record]:
        """All tickets of a kind; a file that is no ticket is removed."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = Record(**json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                logger.warning("no ticket: %s", path.name)
                self.remove(path.stem)
                continue
            if record.kind == kind:
                yield record

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def digest(secret: str) -> str:
    """By what a secret is known without being told."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
