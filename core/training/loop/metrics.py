"""``metrics.jsonl``: what a run reported, one line a report."""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = "metrics.jsonl"
# names that earlier versions wrote, besides the spaces in them
FORMER = {
    "held out/": "val/",
    "answers right": "answer_accuracy",
    "val/right/": "val/detection_accuracy/",
    "squared error": "mse",
}


def append_metrics(folder: Path, line: dict[str, float]) -> None:
    """Write one report; ``step`` and ``seconds`` come first."""
    with (folder / FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All reports of a folder, in order and under today's names; none where there is no file.

    A line that a kill cut short is left out.
    """
    file = folder / FILE
    lines = file.read_text().splitlines() if file.exists() else []
    return [
        {_todays(name): value for name, value in report.items()}
        for report in map(_parsed, lines)
        if report is not None
    ]


def keep_metrics_until(folder: Path, step: int) -> None:
    """Drop what was reported after ``step``, where the run goes on from: those steps come again."""
    file = folder / FILE
    if not file.exists():
        return
    reports = [(line, _parsed(line)) for line in file.read_text().splitlines()]
    part = file.with_suffix(".part")
    part.write_text("".join(f"{line}\n" for line, report in reports if report and report["step"] <= step))
    os.replace(part, file)


def _parsed(line: str) -> dict[str, float] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _todays(name: str) -> str:
    for former, now in FORMER.items():
        name = name.replace(former, now)
    return name.replace(" ", "_")
