"""``python -m core.training``: from nothing (or from your own priors and data) to a HaploOmni, in the paper's three stages."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.training.course import Course

PARTS = ("autoencoder", "language", "vision", "clips", "video", "assemble", "stages", "export", "all")


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m core.training",
        description="Train a HaploOmni: an autoencoder and three priors, their assembly, three stages. Every part resumes "
        "where it was cut off and is skipped when finished. Several processes or GPUs: accelerate launch -m core.training ...",
    )
    parser.add_argument("part", choices=PARTS, nargs="?", default="all", help="which part to run (default: all, in order)")
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder of the run (default: runs/tiny)")
    parser.add_argument("--preset", default="tiny", help="stages: tiny, or 9b with the paper's numbers (default: tiny)")
    parser.add_argument("--steps", type=float, default=1.0, help="factor on all steps and clips (default: 1)")
    parser.add_argument("--rows", type=float, default=1.0, help="factor on the rows of every stage's batch")
    parser.add_argument("--autoencoder", type=Path, help="an earlier autoencoder's folder to start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: what accelerate finds (default)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice; one is often as fast)")
    parser.add_argument("--samples", type=int, default=4, help="clips drawn now and then while a stage learns (default: 4)")
    parser.add_argument("--stages", nargs="+", default=[], help="only these: 3, 2-align-post, ... (default: all)")
    own = parser.add_argument_group("your own start and rows (default: small priors, trained here, on procedural scenes)")
    own.add_argument("--checkpoint", help="a HaploOmni to train on: folder or hub id (leave stage 1 out)")
    own.add_argument("--vision", help="CLIP vision model: folder or hub id")
    own.add_argument("--language", help="Qwen2 causal language model with its tokenizer: folder or hub id")
    own.add_argument("--video", help="CogVideoX transformer: folder or hub id")
    own.add_argument("--vae", help="AutoencoderKLCogVideoX: folder or hub id (default: the checkpoint's)")
    own.add_argument("--data", type=Path, nargs="+", default=[], help="JSONL files of your own rows")
    own.add_argument("--strict", action="store_true", help="stop at the first bad row instead of naming and skipping it")
    own.add_argument("--size", default="49x480x720", help="frames x height x width of your clips (default: 49x480x720)")
    own.add_argument("--longest", type=int, default=2048, help="tokens a row may have (default: 2048)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the chosen parts; exit code 2 with one sentence when that cannot be done."""
    options = build_parser().parse_args(argv)
    from core.training.command import run_command

    return run_command(lambda: run(build_course(options), options.part), options.threads)


def build_course(options: argparse.Namespace) -> Course:
    """The course the options ask for."""
    from core.errors import ConfigError
    from core.training.course import Course, Lengths
    from core.training.stages import chosen, preset, scaled

    stages = scaled(chosen(preset(options.preset), options.stages), options.steps, options.rows, options.seed)
    own = (options.checkpoint, options.vision, options.language, options.video, options.data)
    if not any(own):
        lengths = Lengths().scaled(options.steps)
        return Course(
            options.out, stages, lengths, options.seed, options.device, start=options.autoencoder, samples=options.samples
        )
    from core.training.own_course import Origin, OwnCourse

    if options.part not in (*OwnCourse.parts, "all"):
        raise ConfigError(f"With your own start there is no part '{options.part}'; it has {', '.join(OwnCourse.parts)}.")
    try:
        frames, height, width = map(int, options.size.split("x"))
    except ValueError as error:
        raise ConfigError(f"--size is '{options.size}'; it must be frames x height x width, such as 9x128x128.") from error
    origin = Origin(options.vision, options.language, options.video, options.checkpoint, options.vae, (frames, height, width))
    return OwnCourse(
        options.out, stages, origin, options.data, options.strict, options.longest, options.seed, options.device, options.samples
    )


def run(course: Course, part: str) -> None:
    """One part of a course, or all that it has, in order."""
    parts = {
        "autoencoder": course.autoencoder,
        "language": course.language,
        "vision": course.vision,
        "clips": course.clips,
        "video": course.video,
        "assemble": course.assemble,
        "stages": course.run_stages,
        "export": course.export,
    }
    for name in course.parts if part == "all" else (part,):
        logging.info("== %s", name)
        parts[name]()


if __name__ == "__main__":
    sys.exit(main())
