"""``python -m core.training``: from nothing, or your own priors and rows, to a HaploOmni in three stages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core.training.command import Renamed, add_run_options, factor, run_command, whole_number

if TYPE_CHECKING:
    from core.training.runs.run import RunContext, TrainingRun
    from core.training.stages.stage import Stage

PARTS = ("autoencoder", "language", "vision", "clips", "video", "assemble", "stages", "export", "all")


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m core.training",
        description="Train a HaploOmni: an autoencoder and three priors, their assembly, three stages. "
        "Every part resumes where it was cut off and is skipped when finished. "
        "Several processes or GPUs: accelerate launch -m core.training ...",
    )
    parser.add_argument(
        "part", choices=PARTS, nargs="?", default="all", help="which part to run (default: all, in order)"
    )
    add_run_options(parser)
    parser.add_argument(
        "--preset", default="tiny", help="stages: tiny, or 9b with the paper's numbers (default: tiny)"
    )
    parser.add_argument(
        "--scale", type=factor, default=1.0, help="factor on all steps and clips (default: 1)"
    )
    parser.add_argument(
        "--batch-scale",
        type=factor,
        default=1.0,
        help="factor on the rows of every stage's batch (default: 1)",
    )
    parser.add_argument("--steps", action=Renamed, now="--scale")
    parser.add_argument("--rows", action=Renamed, now="--batch-scale")
    parser.add_argument("--autoencoder", type=Path, help="an earlier autoencoder's folder to start from")
    parser.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0)
    parser.add_argument(
        "--samples",
        type=whole_number(0, 1000),
        default=4,
        help="clips drawn now and then while a stage learns (default: 4)",
    )
    parser.add_argument(
        "--stages", nargs="+", default=[], help="only these: 3, 2-align-post, ... (default: all)"
    )
    _add_own_options(parser)
    return parser


def _add_own_options(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group(
        "your own start and rows (default: small priors, trained here, on procedural scenes)"
    )
    own.add_argument("--checkpoint", help="a HaploOmni to train on: folder or hub id (leave stage 1 out)")
    own.add_argument("--vision", help="CLIP vision model: folder or hub id")
    own.add_argument("--language", help="Qwen2 causal language model with its tokenizer: folder or hub id")
    own.add_argument("--video", help="CogVideoX transformer: folder or hub id")
    own.add_argument("--vae", help="AutoencoderKLCogVideoX: folder or hub id (default: the checkpoint's)")
    own.add_argument("--data", type=Path, nargs="+", default=[], help="JSONL files of your own rows")
    own.add_argument(
        "--strict", action="store_true", help="stop at the first bad row instead of naming and skipping it"
    )
    own.add_argument(
        "--size", default="49x480x720", help="frames x height x width of your clips (default: 49x480x720)"
    )
    own.add_argument(
        "--longest", type=whole_number(1, 2**31), default=2048, help="tokens a row may have (default: 2048)"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the chosen parts; exit code 2 with one sentence when that cannot be done."""
    options = build_parser().parse_args(argv)
    parts = () if options.part == "all" else (options.part,)
    return run_command(lambda: build_run(options).run(*parts), options.threads)


def build_run(options: argparse.Namespace) -> TrainingRun:
    """The run that the options ask for.

    Raises:
        ConfigError: there is no such preset or stage, or the start or the size cannot be.
    """
    from core.training.runs.from_scratch import from_scratch
    from core.training.runs.parts import PriorSchedule
    from core.training.runs.run import RunContext
    from core.training.stages.presets import chosen, preset, scaled

    stages = chosen(preset(options.preset), options.stages)
    stages = scaled(stages, options.scale, options.batch_scale, options.seed)
    context = RunContext(options.out, options.seed, options.device)
    if any((options.checkpoint, options.vision, options.language, options.video, options.data)):
        return _build_finetune(options, context, stages)
    schedule = PriorSchedule().scaled(options.scale)
    return from_scratch(context, stages, schedule, options.autoencoder, options.samples)


def _build_finetune(
    options: argparse.Namespace, context: RunContext, stages: tuple[Stage, ...]
) -> TrainingRun:
    from core.errors import ConfigError
    from core.training.runs.finetune import finetune
    from core.training.runs.finetune_parts import BaseModelSource

    try:
        frames, height, width = map(int, options.size.split("x"))
    except ValueError as error:
        raise ConfigError(
            f"--size is '{options.size}'; it must be frames x height x width, such as 9x128x128."
        ) from error
    source = BaseModelSource(
        options.vision,
        options.language,
        options.video,
        options.checkpoint,
        options.vae,
        (frames, height, width),
    )
    return finetune(context, stages, source, options.data, options.strict, options.longest, options.samples)


if __name__ == "__main__":
    sys.exit(main())
