"""One more stage on what a run has made: ``python -m core.training.further 4-practice --start ... --rows pair=22 ...``.

Everything learns, as in unified tuning, from whatever rows are asked for. Its folder in the run holds the weights and the
record; the run's ``checkpoint`` is written anew from it. A stage that was cut off goes on when it is run again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from core.errors import ConfigError
from core.training.command import run_command
from core.training.course import Course, Lengths
from core.training.stages import NAMES, NOISE, TALKS, Loss, Source, Stage, tiny


class FurtherCourse(Course):
    """A run of which only this one stage counts."""

    def finished(self) -> list[Path]:
        return [self._weights(self.stages[0].name)]


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
            raise ConfigError(f"--rows has '{part}'; write a source and a number of rows, such as video=12, of {known}.")
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
                f"--losses has '{part}'; write a loss and its weight, such as diffusion=0.3, of {', '.join(known)}."
            )
        losses[known[name]] = value
    return losses


def further_stage(name: str, rows: dict[Source, int], steps: int, lr: float, weights: dict[Loss, float] | None = None) -> Stage:
    """Unified tuning of the small preset under another name, with these rows and, where given, weights of the losses.

    Raises:
        ConfigError: the name is one of the way's own stages, or there is nothing to do.
    """
    if name in NAMES or not name or Path(name).name != name:
        raise ConfigError(f"The stage cannot be called '{name}'; take a folder name that is not a stage's of the way.")
    if steps < 1 or lr <= 0:
        raise ConfigError(f"--steps is {steps} and --lr {lr}; both must be above zero.")
    last = tiny()[-1]
    counted = {Loss.NEXT_TOKEN: TALKS, Loss.DIFFUSION: NOISE}
    every = {**last.losses, **(weights or {})}
    losses = {loss: weight for loss, weight in every.items() if loss not in counted or set(rows) & set(counted[loss])}
    plan = replace(last.plan, steps=steps, lr=lr, warmup=max(1, min(last.plan.warmup, steps // 10)))
    stage = replace(last, name=name, rows=rows, losses=losses, plan=plan)
    stage.check()
    return stage


def further(options: argparse.Namespace) -> None:
    """Train and export.

    Raises:
        ConfigError: there is no such start, or the run lacks what the rows are drawn with.
    """
    stage = further_stage(options.name, parse_rows(options.rows), options.steps, options.lr, parse_losses(options.losses))
    needed = [options.out / "priors" / "video" / "config.json", options.out / "clips", options.start / "config.json"]
    for path in needed:
        if not path.exists():
            raise ConfigError(f"There is no {path}; --out is a run of python -m core.training, --start a stage's model folder.")
    lengths = Lengths().scaled(options.lengths)
    course = FurtherCourse(options.out, (stage,), lengths, device=options.device, samples=options.samples)
    if not course.finished()[0].exists():
        course.run_stage(stage, options.start)
    course.export()


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m core.training.further", description=__doc__)
    parser.add_argument("name", help="of the stage and its folder in the run")
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder of the run (default: runs/tiny)")
    parser.add_argument("--start", type=Path, required=True, help="weights to go on from, such as runs/tiny/3-unified/model")
    parser.add_argument("--rows", nargs="+", required=True, help="rows of a batch, such as picture=10 clip=8 still=2 video=12")
    parser.add_argument("--losses", nargs="+", default=[], help="weights other than 1, such as diffusion=0.3 distillation=2")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=float, default=7e-4, help="default: 7e-4")
    parser.add_argument("--lengths", type=float, default=1.0, help="the run's own --steps (default: 1)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--samples", type=int, default=4, help="clips drawn now and then (default: 4)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; exit code 2 with one sentence when that cannot be done."""
    options = build_parser().parse_args(argv)
    return run_command(lambda: further(options), options.threads)


if __name__ == "__main__":
    sys.exit(main())
