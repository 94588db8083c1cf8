"""From nothing to a HaploOmni: autoencoder, three priors, their assembly, three stages, checkpoint."""

from __future__ import annotations

from pathlib import Path

from core.training.runs.assemble import FIT_BATCH_SIZE, AssembleStep, assembly_inputs, build_assembled
from core.training.runs.export import ExportStep
from core.training.runs.parts import Parts, PriorSchedule, SceneParts
from core.training.runs.prior_steps import (
    EncodeClips,
    autoencoder_step,
    language_step,
    video_step,
    vision_step,
)
from core.training.runs.run import RunContext, StepSequence, TrainingRun
from core.training.runs.stage_steps import last_finished, stage_steps
from core.training.stages.stage import Stage


def assembly_and_stages(
    context: RunContext, stages: tuple[Stage, ...], parts: Parts, fit_batch_size: int = FIT_BATCH_SIZE
) -> tuple[AssembleStep, StepSequence]:
    """The steps from finished priors to the last stage's weights."""
    assembly = AssembleStep(
        context,
        lambda: assembly_inputs(context, parts, fit_batch_size),
        lambda: build_assembled(parts, fit_batch_size),
    )
    way = StepSequence(
        "stages", context.processes, lambda: stage_steps(context, stages, parts, assembly.folder)
    )
    return assembly, way


def from_scratch(
    context: RunContext,
    stages: tuple[Stage, ...],
    schedule: PriorSchedule,
    start: Path | None = None,
    num_samples: int = 4,
) -> TrainingRun:
    """The whole way.

    Args:
        context: folder, seed, device.
        stages: see :mod:`core.training.stages.presets`.
        schedule: of what comes before them.
        start: an earlier autoencoder's folder to start from.
        num_samples: clips drawn now and then while a stage learns, and twice as many answers.
    """
    parts = SceneParts(context.folder, schedule, num_samples)
    return TrainingRun(
        context,
        autoencoder_step(context, schedule.autoencoder, start),
        language_step(context, schedule.language),
        vision_step(context, schedule.vision),
        EncodeClips(context, parts),
        video_step(context, parts),
        *assembly_and_stages(context, stages, parts),
        ExportStep(context, parts, lambda: last_finished(context.folder)),
    )
