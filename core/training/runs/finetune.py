"""Training on people's own priors, checkpoint and rows: the stages without the drawn world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.training.initialization.assembly import CONNECTOR, write_amplitudes
from core.training.loop.provenance import claim, whole_folder
from core.training.runs.assemble import AssembleStep, Built, initialize
from core.training.runs.export import ExportStep
from core.training.runs.finetune_parts import BaseModelSource, FinetuneParts
from core.training.runs.parts import data_key
from core.training.runs.run import RunContext, Step, StepSequence, TrainingRun
from core.training.runs.stage_steps import last_finished, load_model, stage_steps
from core.training.stages.presets import with_sources, without_distillation
from core.training.stages.stage import Stage
from core.weights.prior_loading import token_settings
from core.weights.priors import build_from_priors

PRESCALED = "prescaling-inputs.json"
FIT_BATCH_SIZE = 8  # rows of every source that starting values are fitted on


@dataclass
class InitializeStep:
    """Sets the assembled model's starting values from the rows, once; the main process alone does it."""

    context: RunContext
    assembly: AssembleStep
    parts: FinetuneParts
    name: str = "initialize"

    @property
    def inputs(self) -> dict[str, Any]:
        """What the values are made of."""
        return {"data": data_key(self.parts.data), "fit_batch_size": FIT_BATCH_SIZE}

    def is_done(self) -> bool:
        """Whether they are set, from the same rows."""
        done = (self.assembly.folder / "amplitudes.json").exists()
        if done:
            claim(self.assembly.folder, self.inputs, found=True, file=PRESCALED)
        return done

    def run(self) -> None:
        """Measure the rows, set the starting values and write the model anew; the main process alone."""
        if not self.context.processes.is_main_process:
            return
        folder = self.assembly.folder
        model = load_model(folder)
        report = initialize(model, self.parts.teachers, self.parts.data, FIT_BATCH_SIZE)
        with whole_folder(folder) as part:
            claim(part, self.assembly.inputs(), found=False)
            claim(part, self.inputs, found=False, file=PRESCALED)
            write_amplitudes(report, part)
            model.save_pretrained(part)


def build_start(parts: FinetuneParts) -> Built:
    """Three priors in one stack; nothing is measured, for rows can only be read when the stack is there."""
    settings = {**token_settings(parts.tokenizer), "pre_connector": CONNECTOR, "post_connector": CONNECTOR}
    teachers = parts.teachers
    return build_from_priors(teachers.vision, teachers.language, teachers.video, **settings), {}


def finetune(
    context: RunContext,
    stages: tuple[Stage, ...],
    source: BaseModelSource,
    files: list[Path],
    strict: bool = False,
    longest: int = 2048,
    num_samples: int = 4,
) -> TrainingRun:
    """The stages over own priors or an own checkpoint, on own rows.

    Args:
        context: folder, seed, device.
        stages: the way; sources without rows are left out.
        source: what to start from.
        files: JSONL of rows, see :mod:`core.training.data.jsonl`.
        strict: stop at the first bad row.
        longest: tokens a row may have.
        num_samples: clips drawn now and then while a stage learns, and as many answers of each kind.

    Raises:
        ConfigError: the source cannot be, or there are no files.
    """
    source.check()
    if not files:
        raise ConfigError("Your own priors or checkpoint need your own rows: give them with --data.")
    parts = FinetuneParts(context, source, files, strict, longest, num_samples)
    assembly = AssembleStep(
        context, lambda: {"seed": context.seed, **source.prior_digests()}, lambda: build_start(parts)
    )

    def assemble() -> Iterator[Step]:
        if not source.checkpoint:
            yield assembly

    def way() -> Iterator[Step]:
        yield from assemble()  # what rows mean, its processor decides
        kept = with_sources(stages, parts.data.training)
        if source.checkpoint:
            kept = without_distillation(kept)  # it comes without its priors
        elif any(stage.warmup for stage in kept):
            yield InitializeStep(context, assembly, parts)
        yield from stage_steps(context, kept, parts, parts.model_folder)

    return TrainingRun(
        context,
        StepSequence("assemble", context.processes, assemble),
        StepSequence("stages", context.processes, way),
        ExportStep(context, parts, lambda: last_finished(context.folder)),
    )
