"""Run by ``accelerate launch``: a stage of the miniature in the folder given; its metrics are compared by a test."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from core.training.stage_task import StageTask
from core.training.trainer import fit
from tests.training import miniature


def main(folder: Path) -> None:
    """Three steps of unified tuning."""
    torch.set_num_threads(1)
    stage = miniature.stages()[-1]
    task = StageTask(miniature.model(), stage, miniature.data(folder / "clips"), miniature.teachers())
    fit(folder / "run", task, replace(stage.plan, ema=0.0), "cpu")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
