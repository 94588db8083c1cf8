"""Helpers of the tests of a start."""

from __future__ import annotations

from pathlib import Path


def one_sentence(text: str) -> bool:
    return "\n" not in text.strip() and "Traceback" not in text and text.strip()[-1] not in ",;:"


def write_requirements(folder: Path, ranges: str, pins: str = "") -> Path:
    (folder / "requirements.in").write_text(ranges)
    (folder / "requirements.txt").write_text(pins)
    return folder
