"""Training against the clock: a dry run on the CPU with two steps, and the pieces it rests on."""

from __future__ import annotations

import json
import os
import random

import pytest
import torch
from torch import nn

from core.training.loop.config import TrainingConfig
from core.training.loop.prefetch import prefetch
from core.training.loop.processes import BatchShard, build_accelerator
from core.training.loop.task import Task
from core.training.loop.trainer import CONFIG_FILE, Trainer
from core.training.runs.gpu import main, newest_weights, next_part


def drawn(step: int) -> tuple[int, float, int]:
    """What a step draws, and by which process."""
    return step, random.Random(step).random(), os.getpid()


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_come_in_order_whoever_draws_them(workers):
    made = list(prefetch(drawn, 3, 11, workers))
    assert [step for step, _, _ in made] == [*range(3, 11)]
    assert [value for _, value, _ in made] == [random.Random(step).random() for step in range(3, 11)]
    others = {process for _, _, process in made} - {os.getpid()}
    assert len(others) == workers


class Line(Task):
    """A number that is pulled towards three."""

    def __init__(self) -> None:
        super().__init__()
        self.loss_weights = {"error": 1.0}
        self.number = nn.Parameter(torch.zeros(1))

    def sample_batch(self, share: BatchShard) -> dict[str, torch.Tensor]:
        return {"rows": torch.full((4,), 3.0 + 0 * share.step)}

    def num_items(self, batches: dict[str, torch.Tensor]) -> dict[str, int]:
        return {"error": len(batches["rows"])}

    def forward(self, batches: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"error": (self.number - batches["rows"]).square().sum()}


def test_steps_are_fitted_to_the_time_and_go_on_later(tmp_path, monkeypatch):
    now = iter(range(10**6))  # a clock on which every look costs a second
    monkeypatch.setattr("core.training.loop.trainer.time.monotonic", lambda: float(next(now)))
    config = TrainingConfig(10**6, 0.1, warmup=2, seconds=400.0)
    trainer = Trainer(tmp_path, Line(), config, build_accelerator(tmp_path, "cpu"), save_every_s=10**9)
    trainer.run()
    first = trainer.step
    assert 40 < first < 400 and trainer.config.steps == first and trainer.task.number.item() > 1.0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines if "steps" in line] == [first]
    again = Trainer(tmp_path, Line(), config, build_accelerator(tmp_path, "cpu"), save_every_s=10**9)
    assert again.step == first
    again.run()
    assert again.step > first + 40


def test_a_dry_run_trains_the_autoencoder_first(tmp_path, capsys):
    given = [
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--workers",
        "2",
        "--batch-scale",
        "1",
        "--steps",
        "2",
        "--seconds",
        "60",
    ]
    assert main(given) == 0
    states = [path.name for path in (tmp_path / "autoencoder").glob("state-*")]
    assert (
        states == ["state-2"]
        and json.loads((tmp_path / "autoencoder" / CONFIG_FILE).read_text())["workers"] == 2
    )
    assert main(["unified", *given]) == 2 and "no encoded clips" in capsys.readouterr().err


def test_the_next_part_is_the_first_missing(tmp_path):
    assert next_part(tmp_path) == "autoencoder"
    for prior, then in (("autoencoder", "video"), ("video", "unified")):
        (tmp_path / "priors" / prior).mkdir(parents=True)
        (tmp_path / "priors" / prior / "config.json").write_text("{}")
        assert next_part(tmp_path) == then
    with pytest.raises(Exception, match="no stage with weights"):
        newest_weights(tmp_path)
