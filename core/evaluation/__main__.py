"""``python -m core.evaluation``: the table of what a checkpoint can do."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from core.errors import HaploOmniError
from core.evaluation.sheet import contact_sheet
from core.opencv import cv2

if TYPE_CHECKING:
    from core import HaploOmni


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m core.evaluation", description=__doc__)
    parser.add_argument(
        "--checkpoint", default=None, help="folder or hub id; by default the bundled checkpoint"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--questions", type=int, default=60, help="questions of every kind")
    parser.add_argument(
        "--clips", type=int, default=84, help="generated clips of one object, half as many of two (0: none)"
    )
    parser.add_argument(
        "--seen", action="store_true", help="the combinations seen in training instead, as a control"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--sheet", type=Path, help="write a contact sheet of the first 24 generated clips here (PNG)"
    )
    return parser


def _lines(title: str, table: dict[str, tuple[int, int]]) -> list[str]:
    """A table of {kind: (right, total)} in Markdown."""
    rows = [
        f"| {kind.replace('_', ' ')} | {right} / {total} | {right / total:.2f} |"
        for kind, (right, total) in table.items()
    ]
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
    side = "held-out" if held_out else "seen"
    lines = [f"{omni.profile.name}, {side} combinations and phrasings, seed {options.seed}", ""]
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
    """Answers to every kind of question, and to some kinds under harder conditions.

    These are unseen pairs of colour and shape, strangers' words, and another renderer's pictures.
    """
    from core.evaluation.answers import KINDS, QuestionSet, evaluate_answers
    from core.evaluation.renderer import render_otherwise

    pairs = ("colour", "shape", "caption", "yes_no")
    asked = tuple(kind for kind in KINDS if kind not in ("small_talk", "refusal"))
    unseen = QuestionSet(seed, held_out, pairs=True)
    strange = QuestionSet(seed, held_out, strangers=True)
    redrawn = QuestionSet(seed, held_out, draw=render_otherwise)
    half = max(1, questions // 2)
    tables = (
        ("answers", QuestionSet(seed, held_out), KINDS, questions),
        ("about pairs of colour and shape never shown", unseen, pairs, questions),
        ("to strangers' words", strange, asked, half),
        ("about another renderer's pictures", redrawn, asked, half),
    )
    lines = []
    with tqdm(total=sum(len(kinds) * count for _, _, kinds, count in tables), desc="questions") as bar:
        for title, question_set, kinds, count in tables:
            lines += _lines(title, evaluate_answers(omni, count, question_set, kinds, bar.update))
    return lines


def clip_tables(
    omni: HaploOmni, clips: int, held_out: bool, seed: int
) -> tuple[list[str], list[tuple[str, np.ndarray]]]:
    """What the detector finds in reconstructions, in generated clips, and in true ones.

    Returns:
        The tables' lines, and the (prompt, frames uint8 [T, H, W, 3]) of the generated clips.
    """
    from core.evaluation.clips import evaluate_generation, evaluate_seeds, group_scenes, single_scenes
    from core.evaluation.strangers import stranger_prompt

    lines = autoencoder_tables(omni, clips, held_out)
    pairs = single_scenes(random.Random(seed), held_out, pairs=True)
    strange = single_scenes(random.Random(seed + 1), held_out)
    half = max(1, clips // 2)
    tables = (
        ("clips of one object", single_scenes(random.Random(seed), held_out), clips, None),
        ("clips of two objects", group_scenes(random.Random(seed), held_out), half, None),
        ("clips of three objects", group_scenes(random.Random(seed), held_out, 3), half, None),
        ("clips of pairs never shown", pairs, half, None),
        ("clips in strangers' words", strange, half, stranger_prompt),
    )
    made: list[tuple[str, np.ndarray]] = []
    with tqdm(total=sum(count for _, _, count, _ in tables), desc="clips") as bar:
        for title, scenes, count, ask in tables:
            table, some = evaluate_generation(omni, scenes, count, seed, bar.update, held_out, ask)
            lines += _lines(title, table)
            made += some
    lines += _lines("two seeds of one prompt", evaluate_seeds(omni, max(1, clips // 8), seed))
    return lines + detector_tables(clips, held_out, omni.profile.generation.height), made


def detector_tables(clips: int, held_out: bool, side: int) -> list[str]:
    """The detector on true clips of both renderers, ``side`` pixels wide and high."""
    from core.evaluation.clips import evaluate_detector, group_scenes, single_scenes
    from core.evaluation.renderer import render_otherwise
    from core.scenes.scene import render

    lines = []
    for name, draw in (("", render), (" by another renderer", render_otherwise)):
        for title, scenes in (
            ("one object", single_scenes(random.Random(2), held_out)),
            ("two objects", group_scenes(random.Random(2), held_out)),
            ("three objects", group_scenes(random.Random(2), held_out, 3)),
        ):
            table = evaluate_detector(scenes, clips, side, 9, draw)
            lines += _lines(f"the detector on true clips of {title}{name}", table)
    return lines


def autoencoder_tables(omni: HaploOmni, clips: int, held_out: bool) -> list[str]:
    """What the detector finds in the autoencoder's reconstructions, which no generated clip can exceed."""
    from core.evaluation.clips import evaluate_autoencoder, group_scenes, single_scenes
    from core.evaluation.renderer import render_otherwise
    from core.scenes.scene import render

    own = omni.profile.generation
    size = own.num_frames, own.height, own.width
    half = max(1, clips // 2)
    lines = []
    for title, scenes, count, draw in (
        ("one object", single_scenes(random.Random(1), held_out), clips, render),
        ("two objects", group_scenes(random.Random(1), held_out), half, render),
        ("another renderer's clips", single_scenes(random.Random(1), held_out), half, render_otherwise),
    ):
        made = evaluate_autoencoder(omni.vae, scenes, count, size, draw)
        figures = f"objects {made.object_psnr:.1f} dB, edges {made.edge_error:.2f}"
        lines += _lines(f"autoencoder, {title} ({figures})", made.scores)
    return lines


if __name__ == "__main__":
    sys.exit(main())
