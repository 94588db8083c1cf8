"""Runs are lists of steps: what is finished stays, what was made of other things is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import CheckpointError, ConfigError
from core.training.loop.metrics import read_metrics
from core.training.loop.provenance import (
    FILE,
    FORMER,
    claimed,
)
from core.training.runs import prior_steps
from core.training.runs.from_scratch import assembly_and_stages, from_scratch
from core.training.runs.parts import PriorSchedule
from core.training.runs.run import RunContext, StepSequence, TrainingRun
from core.training.stages.stage import Source
from tests.core.training import miniature
from tests.core.training.miniature import MiniatureParts


def short_run(
    tmp_path: Path, changed: MiniatureParts | None = None, seed: int = 0, **config: object
) -> TrainingRun:
    """One stage of one step over priors and data in miniature."""
    stage = miniature.stages(1)[0]
    stages = (replace(stage, config=replace(stage.config, **config)),)
    context = RunContext(tmp_path / "run", seed, "cpu")
    parts = changed or miniature.parts(tmp_path / "clips")
    return TrainingRun(context, *assembly_and_stages(context, stages, parts, fit_batch_size=0))


def other_data(tmp_path: Path) -> MiniatureParts:
    parts = miniature.parts(tmp_path / "clips")
    parts.data.training[Source.PICTURE].key = "other rows"
    return parts


def test_a_finished_stage_of_other_settings_is_refused(tmp_path):
    short_run(tmp_path).run()
    weights = tmp_path / "run" / "1-warmup-pre" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    short_run(tmp_path).run()
    assert weights.stat().st_mtime_ns == before, "what is valid is not made again"
    for other, what in (
        (short_run(tmp_path, lr=0.5), "config lr"),
        (short_run(tmp_path, seed=1), "seed"),
        (short_run(tmp_path, other_data(tmp_path)), "data"),
    ):
        with pytest.raises(CheckpointError, match=f"1-warmup-pre was made with {what} = "):
            other.run("stages")
    for other, what in (
        (short_run(tmp_path, seed=1), "seed"),
        (short_run(tmp_path, other_data(tmp_path)), "data"),
    ):
        with pytest.raises(CheckpointError, match=f"assembled was made with {what} = "):
            other.run("assemble")
    record = json.loads((tmp_path / "run" / "1-warmup-pre" / FILE).read_text())
    config = miniature.stages(1)[0].config.lasting()
    assert record["config"] == json.loads(json.dumps(config, default=lambda value: value.value))
    parts = miniature.parts(tmp_path / "clips")
    parts.teachers = miniature.teachers(seed=1)
    other = short_run(tmp_path, parts)
    with pytest.raises(CheckpointError, match="assembled was made with vision = "):
        other.run("assemble")
    shutil.rmtree(tmp_path / "run" / "assembled")
    other.run("assemble")
    with pytest.raises(CheckpointError, match="1-warmup-pre was made with start = "):
        other.run("stages")


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Its records say the same in other words."""
    short_run(tmp_path).run()
    words = {now: former for former, now in FORMER.items()}

    def in_former_words(value):
        if isinstance(value, dict):
            return {words.get(name, name): in_former_words(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [in_former_words(inner) for inner in value]
        return words.get(value, value) if isinstance(value, str) else value

    run = tmp_path / "run"
    for folder in ("assembled", "1-warmup-pre"):
        file = run / folder / FILE
        file.write_text(json.dumps(in_former_words(json.loads(file.read_text()))))
    stage = json.loads((run / "1-warmup-pre" / FILE).read_text())
    assert "plan" in stage and "learns" in stage
    stage["start"] = claimed(run / "assembled")  # what an earlier version called its own assembly
    (run / "1-warmup-pre" / FILE).write_text(json.dumps(stage))
    made = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    short_run(tmp_path).run()
    assert {file: file.stat().st_mtime_ns for file in made} == made
    with pytest.raises(CheckpointError, match="1-warmup-pre was made with config lr = "):
        short_run(tmp_path, lr=0.5).run("stages")


def test_a_stage_of_an_earlier_version_or_half_a_state_has_its_sentence(tmp_path):
    short_run(tmp_path).run()
    folder = tmp_path / "run" / "1-warmup-pre"
    shutil.rmtree(folder / "model")
    state = next(folder.glob("state-*"))
    (state / "progress.json").write_text('{"step": 1, "sec')
    with pytest.raises(
        CheckpointError, match=r"state-1 cannot be gone on from .*; delete .*1-warmup-pre to begin"
    ):
        short_run(tmp_path).run("stages")
    (folder / FILE).unlink()
    with pytest.raises(CheckpointError, match="1-warmup-pre does not say what it was made of"):
        short_run(tmp_path).run("stages")


def whole_run(folder: Path, schedule: PriorSchedule, seed: int = 0) -> TrainingRun:
    return from_scratch(RunContext(folder, seed, "cpu"), miniature.stages(), schedule)


def test_a_prior_that_is_missing_is_named(tmp_path):
    empty = whole_run(tmp_path, PriorSchedule())
    for part, name in (("clips", "autoencoder"), ("video", "language"), ("assemble", "vision")):
        with pytest.raises(CheckpointError, match=f"make it with python -m core.training {name} --out"):
            empty.run(part)
    with pytest.raises(
        ConfigError, match="no part 'pairs' in this run; it has autoencoder, language, vision"
    ):
        empty.run("pairs")


def test_a_prior_begun_with_other_settings_is_refused(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(prior_steps, "fit_prior", lambda _, name, *__: trained.append(name))
    for schedule in (PriorSchedule(), PriorSchedule()):
        whole_run(tmp_path, schedule).run("language")
    assert trained == ["language", "language"]
    for other in (whole_run(tmp_path, PriorSchedule(language=3)), whole_run(tmp_path, PriorSchedule(), 7)):
        with pytest.raises(CheckpointError, match="language was made with"):
            other.run("language")
    miniature.teachers().language.save_pretrained(tmp_path / "other" / "priors" / "language")
    whole_run(tmp_path / "other", PriorSchedule()).run("language")
    assert trained == ["language", "language"], "a prior that was put there is used as it is"


# -- steps


class Noted:
    """A step that is done when it has run."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def is_done(self) -> bool:
        return self.name in self.notes

    def run(self) -> None:
        self.notes.append(self.name)


def test_steps_run_in_order_and_once(tmp_path):
    context = RunContext(tmp_path, device="cpu")
    notes: list[str] = []

    def compose():
        yield Noted("b", notes)
        assert notes[-2:] == ["a", "b"] or len(notes) > 2, "the next is composed when the one before is done"
        yield Noted("c", notes)

    run = TrainingRun(context, Noted("a", notes), StepSequence("more", context.processes, compose))
    run.run()
    run.run()
    run.run("more")
    assert notes == ["a", "b", "c"]


def test_metrics_of_an_earlier_version_have_todays_names(tmp_path):
    former = {"step": 3, "held out/answers right/clip": 0.5, "held out/next token/picture": 1.0}
    lines = [json.dumps(former), json.dumps({"step": 4, "held out/right/one": 0.25}), '{"step": 5, "he']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_metrics(tmp_path) == [
        {"step": 3, "val/answer_accuracy/clip": 0.5, "val/next_token/picture": 1.0},
        {"step": 4, "val/detection_accuracy/one": 0.25},
    ]
