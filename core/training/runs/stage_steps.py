"""The stages as steps of a run: each trains from the weights before it and leaves a model and a record."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import CheckpointError
from core.model.modeling import HaploOmniForConditionalGeneration
from core.schedule import build_scheduler
from core.training.initialization.prescaling import measure_amplitudes
from core.training.loop.metrics import read_metrics
from core.training.loop.processes import is_sharded
from core.training.loop.provenance import claim, claimed, whole_folder
from core.training.loop.trainer import fit
from core.training.runs.parts import Parts, data_key, fixed_batches
from core.training.runs.run import RunContext
from core.training.stages.parts import Norms
from core.training.stages.presets import NAMES
from core.training.stages.stage import Loss, Stage
from core.training.stages.task import StageTask

NUM_EVALUATIONS = 5  # times a stage is measured and sampled


def load_model(folder: Path) -> HaploOmniForConditionalGeneration:
    """A model in float32."""
    return HaploOmniForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def weights_folder(run: Path, stage: str) -> Path:
    """Where a stage of a run leaves its weights."""
    return run / stage / "model"


def newest_before(run: Path, stage: str, assembled: Path) -> Path:
    """The weights of the last finished stage before this one, whenever it was trained; else ``assembled``."""
    earlier = [weights_folder(run, name) for name in NAMES[: NAMES.index(stage)]]
    return next((folder for folder in reversed(earlier) if folder.exists()), assembled)


def last_finished(run: Path) -> Path:
    """The weights of the last finished stage of the way.

    Raises:
        CheckpointError: there are none yet.
    """
    done = [folder for name in NAMES if (folder := weights_folder(run, name)).exists()]
    if not done:
        raise CheckpointError(f"No stage is finished in {run}; run the stages first.")
    return done[-1]


@dataclass
class StageStep:
    """Trains one stage.

    Args:
        context: of the run.
        stage: what learns, from what and how.
        parts: data, teachers and samples.
        start: the weights to start from.
        norms: how the blocks' norms behave.
        num_evaluations: times it is measured and sampled.
    """

    context: RunContext
    stage: Stage
    parts: Parts
    start: Path
    norms: Norms = Norms.ADAPTIVE
    num_evaluations: int = NUM_EVALUATIONS

    @property
    def name(self) -> str:
        """The name of the stage, which is its folder's too."""
        return self.stage.name

    @property
    def folder(self) -> Path:
        """Of the stage in the run."""
        return self.context.folder / self.name

    @property
    def weights(self) -> Path:
        """What comes of it."""
        return weights_folder(self.context.folder, self.name)

    def inputs(self) -> dict[str, Any]:
        """What its weights are made of."""
        stage = self.stage
        return {
            "seed": self.context.seed,
            "start": claimed(self.start),
            "data": data_key(self.parts.data),
            "rows": {source.value: rows for source, rows in stage.rows.items()},
            "losses": {loss.value: weight for loss, weight in stage.losses.items()},
            "trainable": [part.name.lower() for part in stage.trainable],
            "norms": self.norms,
            "config": stage.config.lasting(),
        }

    def is_done(self) -> bool:
        """Whether its weights are there, made of the same."""
        done = self.weights.exists()
        if done:
            claim(self.folder, self.inputs(), found=True)
        return done

    def run(self) -> None:
        """Train it, or go on."""
        stage = self.stage
        with self.context.processes.main_process_first():
            claim(self.folder, self.inputs(), found=any(self.folder.glob("state-*")))
        teachers = self.parts.teachers if Loss.DISTILLATION in stage.losses else None
        task = StageTask(
            load_model(self.start),
            stage,
            self.parts.data,
            teachers,
            self.context.seed,
            self.norms,
            self.parts.sample_writer,
        )

        def save(state: dict[str, Tensor]) -> None:
            (self.folder / "stage.json").write_text(json.dumps(self._record(task), indent=1) + "\n")
            # the task's state holds its teachers too
            own = {
                name.removeprefix("model."): value
                for name, value in state.items()
                if name.startswith("model.")
            }
            with whole_folder(self.weights) as part:
                task.model.save_pretrained(part, state_dict=own)

        sample_every = max(1, stage.config.steps // self.num_evaluations)
        fit(self.folder, task, stage.config, self.context.device, sample_every, on_finish=save)

    def _record(self, task: StageTask) -> dict[str, Any]:
        """What the finished stage did, as it is written beside its weights.

        Of the keys ``parameters`` is how many numbers learned, ``seconds`` those of all sessions together.
        ``started_from`` names the folder whose weights came before.
        ``amplitudes`` is how loud every modality is at the connectors, see :func:`measure_amplitudes`.
        """
        stage = self.stage
        reports = read_metrics(self.folder)
        amplitudes: dict[str, dict[str, float]] = {}
        if not is_sharded():
            batches = fixed_batches(self.parts.data)
            amplitudes = measure_amplitudes(task.model, build_scheduler(), batches, task.device)
        return {
            "stage": stage.name,
            "trainable": [part.name.lower() for part in stage.trainable],
            "losses": {loss.value: weight for loss, weight in stage.losses.items()},
            "rows": {source.value: rows for source, rows in stage.rows.items()},
            "config": {key: getattr(value, "value", value) for key, value in asdict(stage.config).items()},
            "parameters": task.parameters_learning,
            "started_from": self.start.parent.name if self.start.name == "model" else self.start.name,
            "seconds": reports[-1]["seconds"] if reports else 0.0,
            "processes": self.context.processes.num_processes,
            "device": platform.processor() or platform.machine(),
            "amplitudes": amplitudes,
        }


def stage_steps(
    context: RunContext,
    stages: Iterable[Stage],
    parts: Parts,
    assembled: Path,
    norms: Norms = Norms.ADAPTIVE,
    num_evaluations: int = NUM_EVALUATIONS,
) -> Iterator[StageStep]:
    """The stages as steps, each from the newest weights before it when its turn comes."""
    for stage in stages:
        start = newest_before(context.folder, stage.name, assembled)
        yield StageStep(context, stage, parts, start, norms, num_evaluations)
