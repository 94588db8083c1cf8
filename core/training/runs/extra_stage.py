"""One more stage on what a run has made: ``python -m core.training.runs.extra_stage 4-pairs --start ...``.

Everything learns, as in unified tuning, from whatever rows are asked for.
Its folder in the run holds the weights and the record; the run's ``checkpoint`` is written anew from it.
A stage that was cut off goes on when it is run again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from core.errors import ConfigError
from core.training.command import Renamed, add_run_options, factor, run_command, whole_number
from core.training.runs.export import ExportStep
from core.training.runs.parts import Parts, PriorSchedule, SceneParts, prior_folder
from core.training.runs.run import RunContext, TrainingRun
from core.training.runs.stage_steps import StageStep
from core.training.stages.presets import NAMES, tiny
from core.training.stages.stage import NOISE, TALKS, Loss, Source, Stage


def parse_rows(given: list[str]) -> dict[Source, int]:
    """``["picture=10", "video=12"]`` as numbers of rows by source.

    Raises:
        ConfigError: an unknown source, or a number below one.
    """
    rows: dict[Source, int] = {}
    for part in given:
        name, _, count = part.partition("=")
        if name not in {source.value for source in Source} or not count.isdecimal() or int(count) < 1:
            known = ", ".join(source.value for source in Source)
            raise ConfigError(
                f"--rows has '{part}'; write a source and a number of rows, such as video=12, of {known}."
            )
        rows[Source(name)] = int(count)
    return rows


def parse_losses(given: list[str]) -> dict[Loss, float]:
    """``["diffusion=0.3", "distillation=2"]`` as weights by loss.

    Raises:
        ConfigError: a loss that unified tuning does not count, or a weight that is not above zero.
    """
    known = {loss.value: loss for loss in tiny()[-1].losses}
    losses: dict[Loss, float] = {}
    for part in given:
        name, _, weight = part.partition("=")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if name not in known or not 0 < value < float("inf"):
            raise ConfigError(
                f"--losses has '{part}'; write a loss and its weight, such as diffusion=0.3, "
                f"of {', '.join(known)}."
            )
        losses[known[name]] = value
    return losses


def extra_stage(
    name: str, rows: dict[Source, int], steps: int, lr: float, weights: dict[Loss, float] | None = None
) -> Stage:
    """Unified tuning of the small preset under another name.

    Args:
        name: of the stage and its folder.
        rows: of every source in a batch.
        steps: optimizer steps.
        lr: peak learning rate.
        weights: of losses, where they are not 1.

    Raises:
        ConfigError: the name is one of the way's own stages, or there is nothing to do.
    """
    if name in NAMES or not name or Path(name).name != name:
        raise ConfigError(
            f"The stage cannot be called '{name}'; take a folder name that is not a stage's of the way."
        )
    if steps < 1 or lr <= 0:
        raise ConfigError(f"--steps is {steps} and --lr {lr}; both must be above zero.")
    last = tiny()[-1]
    learned_from = {Loss.NEXT_TOKEN: TALKS, Loss.DIFFUSION: NOISE}
    losses = {
        loss: weight
        for loss, weight in {**last.losses, **(weights or {})}.items()
        if loss not in learned_from or set(rows) & set(learned_from[loss])
    }
    warmup = max(1, min(last.config.warmup, steps // 10))
    config = replace(last.config, steps=steps, lr=lr, warmup=warmup)
    stage = replace(last, name=name, rows=rows, losses=losses, config=config)
    stage.check()
    return stage


def extra_stage_run(context: RunContext, stage: Stage, parts: Parts, start: Path) -> TrainingRun:
    """The stage from the weights in ``start``, and the run's checkpoint from its own."""
    step = StageStep(context, stage, parts, start)
    return TrainingRun(context, step, ExportStep(context, parts, lambda: step.weights))


def run(options: argparse.Namespace) -> None:
    """Train and export.

    Raises:
        ConfigError: there is no such start, or the run lacks what the rows are drawn with.
    """
    rows = parse_rows(options.rows)
    stage = extra_stage(options.name, rows, options.steps, options.lr, parse_losses(options.losses))
    needed = (
        prior_folder(options.out, "video") / "config.json",
        options.out / "clips",
        options.start / "config.json",
    )
    for path in needed:
        if not path.exists():
            raise ConfigError(
                f"There is no {path}; "
                "--out is a run of python -m core.training, --start a stage's model folder."
            )
    parts = SceneParts(options.out, PriorSchedule().scaled(options.scale), options.samples)
    context = RunContext(options.out, device=options.device)
    extra_stage_run(context, stage, parts, options.start).run()


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m core.training.runs.extra_stage", description=__doc__)
    parser.add_argument("name", help="of the stage and its folder in the run")
    add_run_options(parser)
    parser.add_argument(
        "--start", type=Path, required=True, help="weights to go on from, such as runs/tiny/3-unified/model"
    )
    parser.add_argument(
        "--rows", nargs="+", required=True, help="rows of a batch, such as picture=10 clip=8 still=2 video=12"
    )
    parser.add_argument(
        "--losses", nargs="+", default=[], help="weights other than 1, such as diffusion=0.3 distillation=2"
    )
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps")
    parser.add_argument("--lr", type=float, default=7e-4, help="peak learning rate (default: 7e-4)")
    parser.add_argument("--scale", type=factor, default=1.0, help="the run's own --scale (default: 1)")
    parser.add_argument("--lengths", action=Renamed, now="--scale")
    parser.add_argument(
        "--samples", type=whole_number(0, 1000), default=4, help="clips drawn now and then (default: 4)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; exit code 2 with one sentence when that cannot be done."""
    options = build_parser().parse_args(argv)
    return run_command(lambda: run(options), options.threads)


if __name__ == "__main__":
    sys.exit(main())
