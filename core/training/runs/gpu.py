"""What helps most in minutes on a GPU: ``python -m core.training.runs.gpu --out runs/tiny --seconds 540``.

A step of these small models takes a GPU little but launching time, so batches are large and many processes
draw their rows; the number of steps is fitted to the time there is.
The folder is that of ``python -m core.training``: what was begun on a CPU goes on here and the other way
round, whenever it was cut off. Figures go to the part's ``metrics.jsonl``.

    autoencoder   the whole autoencoder; its decoder's last steps are left to ``python -m core.training``
    video         the video prior with clips
    unified       everything together, from the newest weights, with the video prior as teacher
    next          the first of these whose result is missing, and unified when none is (default)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from diffusers import CogVideoXTransformer3DModel
from transformers import Qwen2ForCausalLM

from core.errors import ConfigError
from core.training.command import Renamed, add_run_options, factor, run_command, whole_number
from core.training.loop.config import TrainingConfig
from core.training.loop.provenance import FILE
from core.training.loop.trainer import fit
from core.training.priors.autoencoder import AutoencoderTask
from core.training.priors.video import VideoPrior
from core.training.runs.extra_stage import extra_stage, extra_stage_run, parse_rows
from core.training.runs.parts import PriorSchedule, SceneParts, finished_prior, prior_folder
from core.training.runs.prior_steps import (
    AUTOENCODER,
    MUON,
    autoencoder_step,
    first_autoencoder,
    fit_prior,
    video_step,
)
from core.training.runs.run import RunContext
from core.weights.prior_loading import load_prior

PARTS = ("next", "autoencoder", "video", "unified")
ENDLESS = 10_000_000  # steps, before their number is fitted to the time
EVALUATE_EVERY = 200  # steps between figures on held-out rows
BATCH_SCALE = 16  # a batch here is so many times one on a CPU
UNIFIED = {"picture": 10, "clip": 8, "still": 2, "video": 12}


def next_part(run: Path) -> str:
    """The first part of a run whose result is missing."""
    for name in ("autoencoder", "video"):
        if not (prior_folder(run, name) / "config.json").exists():
            return name
    return "unified"


def newest_weights(run: Path) -> Path:
    """The weights of the stage that was finished last.

    Raises:
        ConfigError: there are none.
    """
    found = sorted(run.glob("*/model/config.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise ConfigError(
            f"{run} has no stage with weights to go on from; run python -m core.training --out {run} first."
        )
    return found[-1].parent


def _timed(config: TrainingConfig, session: TrainingConfig) -> TrainingConfig:
    """``config`` with the steps, warmup, time and processes of this session."""
    return replace(
        config, steps=session.steps, warmup=session.warmup, seconds=session.seconds, workers=session.workers
    )


def train_autoencoder(
    context: RunContext, steps: int, session: TrainingConfig, batch_scale: int, start: Path | None
) -> None:
    """Go on with the autoencoder of the run, or begin it.

    Args:
        context: of the run.
        steps: that the run itself trains it for.
        session: steps, warmup, seconds and workers of this session.
        batch_scale: factor on the rows of a batch.
        start: an earlier autoencoder to begin from.
    """
    autoencoder_step(context, steps, start).claim()  # as the run itself would begin it
    task = AutoencoderTask(first_autoencoder(start), rows=6 * batch_scale, seed=context.seed)
    config = _timed(AUTOENCODER, session)
    fit(context.folder / "autoencoder", task, config, context.device, EVALUATE_EVERY)


def train_video(
    context: RunContext, parts: SceneParts, session: TrainingConfig, batch_scale: int, start: Path | None
) -> None:
    """The video prior with clips, from ``start``, or from the run's own of pictures alone."""
    video_step(context, parts).claim()
    language = load_prior(Qwen2ForCausalLM, str(finished_prior(context.folder, "language")))
    rows = {"still_rows": 16 * batch_scale, "clip_rows": 20 * batch_scale}
    task = VideoPrior(language, parts.stills, parts.clips, **rows, seed=context.seed + 1)
    start = start or prior_folder(context.folder, "video-stills")
    if (start / "config.json").exists():
        task.video.load_state_dict(load_prior(CogVideoXTransformer3DModel, str(start)).state_dict())
    fit_prior(context, "video", task, _timed(replace(MUON, ema=0.998), session))


def train_unified(
    context: RunContext, parts: SceneParts, session: TrainingConfig, rows: list[str], start: Path | None
) -> None:
    """Everything together as a stage of its own, numbered after those that are there; then the checkpoint."""
    states = context.folder.glob("*-gpu/state-*[0-9]")
    begun = [state.parent.name for state in states if not (state.parent / "model").exists()]
    finished = sum((folder / "model").exists() for folder in context.folder.glob("[0-9]*-*"))
    stage = extra_stage(begun[0] if begun else f"{finished + 1}-gpu", parse_rows(rows), ENDLESS, 1e-3)
    stage = replace(stage, config=_timed(stage.config, session))
    extra_stage_run(context, stage, parts, start or newest_weights(context.folder)).run()


def work(options: argparse.Namespace) -> None:
    """Do the part that was asked for in the time there is.

    Raises:
        ConfigError: the run lacks what the part needs.
    """
    begun = time.monotonic()
    context = RunContext(options.out, device=options.device)
    part = next_part(options.out) if options.part == "next" else options.part
    if part != "autoencoder" and not (options.out / "clips" / FILE).exists():
        raise ConfigError(
            f"{options.out} has no encoded clips yet: python -m core.training clips --out {options.out}"
        )
    schedule = PriorSchedule().scaled(options.scale)
    parts = SceneParts(options.out, schedule)
    steps = options.steps or ENDLESS
    seconds = options.seconds - (time.monotonic() - begun)
    session = TrainingConfig(steps, 0.0, min(60, steps), seconds=seconds, workers=options.workers)
    if part == "autoencoder":
        train_autoencoder(context, schedule.autoencoder, session, options.batch_scale, options.start)
    elif part == "video":
        train_video(context, parts, session, options.batch_scale, options.start)
    else:
        usual = [f"{source}={count * options.batch_scale}" for source, count in UNIFIED.items()]
        train_unified(context, parts, session, options.rows or usual, options.start)


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m core.training.runs.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=PARTS, nargs="?", default="next")
    add_run_options(parser)
    parser.add_argument(
        "--seconds",
        type=float,
        default=540.0,
        help="time there is, loading and saving included (default: 540)",
    )
    parser.add_argument(
        "--start", type=Path, help="an earlier autoencoder, video prior or model to begin from"
    )
    parser.add_argument(
        "--batch-scale",
        type=whole_number(1, 100_000),
        default=BATCH_SCALE,
        help=f"factor on the rows of a batch on a CPU (default: {BATCH_SCALE})",
    )
    parser.add_argument(
        "--rows", nargs="+", default=[], help="rows of unified batches instead, such as picture=160 video=192"
    )
    parser.add_argument(
        "--steps", type=int, default=0, help="at most so many steps (default: what the time allows)"
    )
    parser.add_argument("--scale", type=factor, default=1.0, help="the run's own --scale (default: 1)")
    parser.add_argument("--lengths", action=Renamed, now="--scale (and --scale is called --batch-scale)")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="processes that draw rows"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; exit code 2 with one sentence when that cannot be done."""
    options = build_parser().parse_args(argv)
    return run_command(lambda: work(options), options.threads)


if __name__ == "__main__":
    sys.exit(main())
