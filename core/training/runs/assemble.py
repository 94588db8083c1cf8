"""The step between priors and stages: one stack, with starting values set on real batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.model.modeling import HaploOmniForConditionalGeneration
from core.schedule import build_scheduler
from core.training.initialization.assembly import amplitudes_and_scales, assemble, write_amplitudes
from core.training.initialization.least_squares import fit_initial_weights
from core.training.initialization.prescaling import measure_amplitudes
from core.training.loop.provenance import claim, weights_digest, whole_folder
from core.training.runs.parts import Parts, data_key, fixed_batches
from core.training.runs.run import RunContext
from core.training.stages.task import Data
from core.training.stages.teachers import Teachers

FIT_BATCH_SIZE = 24  # rows of every source that starting values are fitted on
# a model, and what was measured on the way to it
Built = tuple[HaploOmniForConditionalGeneration, dict[str, Any]]


@dataclass
class AssembleStep:
    """Writes the model that the stages start from into ``assembled`` of the run, on the main process.

    Args:
        context: of the run.
        inputs: what the model is made of.
        build: makes it.
    """

    context: RunContext
    inputs: Callable[[], dict[str, Any]]
    build: Callable[[], Built]
    name: str = "assemble"

    @property
    def folder(self) -> Path:
        """Where the assembled model is written."""
        return self.context.folder / "assembled"

    def is_done(self) -> bool:
        """Whether the model is there, made of the same."""
        done = (self.folder / "config.json").exists()
        if done:
            claim(self.folder, self.inputs(), found=True)
        return done

    def run(self) -> None:
        """Build the model and write it with what it was made of; the main process alone."""
        if not self.context.processes.is_main_process:
            return
        inputs = self.inputs()
        torch.manual_seed(self.context.seed)
        model, report = self.build()
        with whole_folder(self.folder) as part:
            claim(part, inputs, found=False)
            if report:
                write_amplitudes(report, part)
            model.save_pretrained(part)


def initialize(
    model: HaploOmniForConditionalGeneration, teachers: Teachers, data: Data, fit_batch_size: int
) -> dict[str, Any]:
    """Set an assembled model's starting values.

    First the connectors' scales, from the modalities' amplitudes, then the rest, by least squares.

    Args:
        model: changed in place.
        teachers: its priors.
        data: what the stages draw from.
        fit_batch_size: rows of every source to fit on; 0 to leave out the fit.

    Returns:
        What was measured.
    """
    batches = fixed_batches(data)
    scheduler = build_scheduler()
    report = amplitudes_and_scales(model, teachers, batches)
    if fit_batch_size:
        fitting = fixed_batches(data, fit_batch_size)
        report["fitted"] = fit_initial_weights(model, teachers.language, scheduler, fitting)
    return report | {"after": measure_amplitudes(model, scheduler, batches, model.lm_head.weight.device)}


def build_assembled(parts: Parts, fit_batch_size: int) -> Built:
    """The priors' assembly with its starting values."""
    model = assemble(parts.teachers, parts.tokenizer)
    return model, initialize(model, parts.teachers, parts.data, fit_batch_size)


def assembly_inputs(context: RunContext, parts: Parts, fit_batch_size: int) -> dict[str, Any]:
    """What :func:`build_assembled` makes its model of."""
    names = ("vision", "language", "video")
    priors = {name: weights_digest(getattr(parts.teachers, name)) for name in names}
    settings = {"data": data_key(parts.data), "fit_batch_size": fit_batch_size}
    return {"seed": context.seed, **priors, **settings}
