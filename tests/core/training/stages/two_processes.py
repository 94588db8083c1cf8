"""Run by ``accelerate launch``: a stage of the miniature in the folder given; a test compares its metrics."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from core.training.loop.trainer import fit
from core.training.stages.task import StageTask
from tests.core.training import miniature


def main(folder: Path) -> None:
    """Three steps of unified tuning."""
    torch.set_num_threads(1)
    stage = miniature.stages()[-1]
    task = StageTask(miniature.model(), stage, miniature.data(folder / "clips"), miniature.teachers())
    fit(folder / "run", task, replace(stage.config, ema=0.0), "cpu")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
