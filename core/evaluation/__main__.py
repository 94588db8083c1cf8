"""``python -m core.evaluation``: the table of what a checkpoint can do."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from core.errors import HaploOmniError
from core.evaluation.sheet import contact_sheet

if TYPE_CHECKING:
    from core import HaploOmni


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m core.evaluation", description=__doc__)
    parser.add_argument("--checkpoint", default=None, help="folder or hub id; by default the bundled checkpoint")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--questions", type=int, default=60, help="questions of every kind")
    parser.add_argument("--clips", type=int, default=84, help="generated clips of one object, half as many of two (0: none)")
    parser.add_argument("--seen", action="store_true", help="the combinations seen in training instead, as a control")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the first 24 generated clips here (PNG)")
    return parser


def _lines(title: str, table: dict[str, tuple[int, int]]) -> list[str]:
    rows = [f"| {kind.replace('_', ' ')} | {right} / {total} | {right / total:.2f} |" for kind, (right, total) in table.items()]
    return [f"| {title} | right | share |", "|---|---|---|", *rows, ""]


def main(argv: list[str] | None = None) -> int:
    """Print the tables; exit code 2 with one sentence when the checkpoint cannot be used."""
    options = build_parser().parse_args(argv)
    from core import HaploOmni

    try:
        omni = HaploOmni.load(options.checkpoint, device=options.device)
    except HaploOmniError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    started = time.monotonic()
    held_out = not options.seen
    lines = [f"{omni.profile['name']}, {'held-out' if held_out else 'seen'} combinations and phrasings, seed {options.seed}", ""]
    lines += answer_tables(omni, options.questions, held_out, options.seed)
    if options.clips:
        tables, clips = clip_tables(omni, options.clips, held_out, options.seed)
        lines += tables
        if options.sheet:
            cv2.imwrite(str(options.sheet), contact_sheet(clips[:24]))
    print("\n".join(lines))  # noqa: T201
    print(f"took {time.monotonic() - started:.0f} s")  # noqa: T201
    return 0


def answer_tables(omni: HaploOmni, questions: int, held_out: bool, seed: int) -> list[str]:
    """Answers to every kind of question, and about pairs of colour and shape that training never shows."""
    from core.evaluation.answers import KINDS, Exam, evaluate_answers

    pairs = ("colour", "shape", "caption", "yes_no")
    with tqdm(total=questions * (len(KINDS) - 1 + len(pairs)), desc="questions") as bar:
        lines = _lines("answers", evaluate_answers(omni, questions, Exam(seed, held_out), progress=bar.update))
        never = evaluate_answers(omni, questions, Exam(seed, held_out, pairs=True), pairs, bar.update)
    return lines + _lines("about pairs of colour and shape never shown", never)


def clip_tables(omni: HaploOmni, clips: int, held_out: bool, seed: int) -> tuple[list[str], list[tuple[str, np.ndarray]]]:
    """The autoencoder, clips of one object and of two, distinct seeds, and the judge itself; and the clips made."""
    from core.evaluation import clips as judged

    reconstructed, psnr = judged.evaluate_autoencoder(omni, clips)
    lines = _lines(f"autoencoder (objects {psnr:.1f} dB)", reconstructed)
    made: list[tuple[str, np.ndarray]] = []
    two = max(1, clips // 2)
    worlds = (
        ("clips of one object", judged.single_scenes(random.Random(seed), held_out), clips),
        ("clips of two objects", judged.pair_scenes(random.Random(seed), held_out), two),
        ("clips of pairs never shown", judged.single_scenes(random.Random(seed), held_out, pairs=True), two),
    )
    side = omni.profile["generation"]["height"]
    with tqdm(total=clips + 2 * two, desc="clips") as bar:
        for title, scenes, count in worlds:
            table, some = judged.evaluate_generation(omni, scenes, count, seed, bar.update, held_out)
            lines += _lines(title, table)
            made += some
    lines += _lines("two seeds of one prompt", judged.evaluate_seeds(omni, max(1, clips // 8), seed))
    singles, doubles = judged.single_scenes(random.Random(2), held_out), judged.pair_scenes(random.Random(2), held_out)
    lines += _lines("the judge on true clips of one object", judged.evaluate_judge(singles, clips, side, 9))
    lines += _lines("the judge on true clips of two", judged.evaluate_judge(doubles, two, side, 9))
    return lines, made


if __name__ == "__main__":
    sys.exit(main())
