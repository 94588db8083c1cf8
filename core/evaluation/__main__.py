"""``python -m core.evaluation``: the table of what a checkpoint can do."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from core.errors import HaploOmniError


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m core.evaluation", description=__doc__)
    parser.add_argument("--checkpoint", default=None, help="folder or hub id; by default the bundled checkpoint")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--questions", type=int, default=60, help="questions of every kind")
    parser.add_argument("--clips", type=int, default=84, help="generated clips (0: none)")
    parser.add_argument("--seen", action="store_true", help="the combinations seen in training instead, as a control")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the first 24 generated clips here (PNG)")
    return parser


def contact_sheet(clips: list[tuple[str, np.ndarray]], columns: int = 2) -> np.ndarray:
    """One row a clip (five of its frames) with the prompt above, ``columns`` clips side by side: uint8 BGR."""
    cells = []
    for text, frames in clips:
        picks = [frames[i] for i in np.linspace(0, len(frames) - 1, 5).astype(int)]
        row = cv2.cvtColor(np.concatenate(picks, axis=1), cv2.COLOR_RGB2BGR)
        label = np.full((20, row.shape[1], 3), 255, np.uint8)
        cv2.putText(label, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(np.concatenate([label, row, np.full((4, row.shape[1], 3), 255, np.uint8)]))
    while len(cells) % columns:
        cells.append(np.full_like(cells[0], 255))
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return np.concatenate(rows)


def _lines(title: str, table: dict[str, tuple[int, int]]) -> list[str]:
    rows = [f"| {kind.replace('_', ' ')} | {right} / {total} | {right / total:.2f} |" for kind, (right, total) in table.items()]
    return [f"| {title} | right | share |", "|---|---|---|", *rows, ""]


def main(argv: list[str] | None = None) -> int:
    """Print the tables; exit code 2 with one sentence when the checkpoint cannot be used."""
    options = build_parser().parse_args(argv)
    from tqdm import tqdm

    from core import HaploOmni
    from core.evaluation.answers import KINDS, evaluate_answers
    from core.evaluation.clips import evaluate_autoencoder, evaluate_generation, evaluate_judge

    try:
        omni = HaploOmni.load(options.checkpoint, device=options.device)
    except HaploOmniError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    started = time.monotonic()
    held_out = not options.seen
    lines = [f"{omni.profile['name']}, {'held-out' if held_out else 'seen'} combinations, seed {options.seed}", ""]
    with tqdm(total=options.questions * (len(KINDS) - 1), desc="questions") as bar:
        lines += _lines("answers", evaluate_answers(omni, options.questions, held_out, options.seed, bar.update))
    if options.clips:
        reconstructed, psnr = evaluate_autoencoder(omni, options.clips)
        lines += _lines(f"autoencoder (objects {psnr:.1f} dB)", reconstructed)
        with tqdm(total=options.clips, desc="clips") as bar:
            made, clips = evaluate_generation(omni, options.clips, held_out, options.seed, bar.update)
        lines += _lines("generated clips", made)
        side = omni.profile["generation"]["height"]
        lines += _lines("the judge on true clips", evaluate_judge(options.clips, side, 9))
        if options.sheet:
            cv2.imwrite(str(options.sheet), contact_sheet(clips[:24]))
    print("\n".join(lines))  # noqa: T201
    print(f"took {time.monotonic() - started:.0f} s")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
