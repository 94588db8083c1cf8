"""The paper's claims at the small size: ``python -m core.training.ablation``, with and without each idea.

Four comparisons at equal compute, every arm with several seeds: with and without the warmup, with and without
feature pre-scaling, multimodal AdaLN against a plain norm, staged against joint training from scratch.
Compute is counted in floating-point operations of the forward and backward passes; an arm that leaves a stage
out spends its share on the last.
The priors' own training is not counted: the paper's claim is about what to do when one has them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from core.training.ablation.arms import ARMS, train_arms
from core.training.command import Renamed, factor, run_command, whole_number


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m core.training.ablation", description=__doc__)
    parser.add_argument(
        "--base-run", type=Path, default=Path("runs/tiny"), help="run whose priors and clips are used"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument(
        "--scale", type=factor, default=0.1, help="factor on the steps of all stages (default: 0.1)"
    )
    parser.add_argument(
        "--batch-scale", type=factor, default=0.5, help="factor on the rows of every batch (default: 0.5)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", default=[arm.name for arm in ARMS], help="default: all")
    parser.add_argument(
        "--base-scale",
        type=factor,
        default=1.0,
        help="the --scale that the base run was made with (default: 1)",
    )
    for former, now in (
        ("--world", "--base-run"),
        ("--steps", "--scale"),
        ("--rows", "--batch-scale"),
        ("--lengths", "--base-scale"),
    ):
        parser.add_argument(former, action=Renamed, now=now)
    parser.add_argument("--threads", type=whole_number(0, 4096), default=0)
    parser.add_argument("--report-only", action="store_true", help="draw and print what is finished")
    return parser


def compare(options: argparse.Namespace) -> None:
    """Train, draw and print."""
    # first, since drawing needs a package of its own
    from core.training.ablation.report import draw_curves, table

    results = train_arms(
        options.out,
        options.base_run,
        options.arms,
        options.seeds,
        options.scale,
        options.batch_scale,
        options.base_scale,
        options.report_only,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_curves(results, options.out / "curves.png")
    print(table(results))  # noqa: T201


def main(argv: list[str] | None = None) -> int:
    """Train all arms (finished ones are skipped), draw the curves, print the table."""
    options = build_parser().parse_args(argv)
    return run_command(lambda: compare(options), options.threads)


if __name__ == "__main__":
    sys.exit(main())
