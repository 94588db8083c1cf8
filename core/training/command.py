"""What the training commands share: options, threads, and one sentence when something cannot be done."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from core.errors import HaploOmniError
from core.text import whole_text

EXTRAS = ("matplotlib", "tensorboard")


class Renamed(argparse.Action):
    """An option's word of an earlier version: refused with today's, for elsewhere it means something else."""

    def __init__(self, option_strings: list[str], dest: str, now: str) -> None:
        super().__init__(option_strings, dest, nargs="*", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        self.now = now

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(f"{self.option_strings[0]} is now called {self.now}")


def factor(text: str) -> float:
    """A number above 0 and below a million, from the command line."""
    value = float(text)
    if not 0.0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} must be a number above 0 and below a million")
    return value


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``low`` to ``high`` from the command line."""

    def number(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]} must be a whole number from {low} to {high}")
        return int(text)

    return number


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """``--out``, ``--device`` and ``--threads``: where a run stands and what it uses."""
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tiny"), help="folder of the run (default: runs/tiny)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu"), default="auto", help="auto: what accelerate finds (default)"
    )
    parser.add_argument(
        "--threads",
        type=whole_number(0, 4096),
        default=0,
        help="CPU threads (default: PyTorch's choice; one is often as fast)",
    )


def run_command(work: Callable[[], None], threads: int = 0) -> int:
    """Do ``work`` with ``threads`` CPU threads (0: PyTorch's choice).

    Returns:
        The exit code: 0, or 2 after one sentence on standard error.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    if threads:
        import torch

        torch.set_num_threads(threads)
    try:
        work()
    except HaploOmniError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        place = whole_text(str(error.filename))
        return _refuse(
            f"{place} cannot be read or written ({error.strerror}); "
            "free the place, or choose another with --out."
        )
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return _refuse(f"This needs the package '{error.name}': pip install -r requirements-train.txt")
    return 0


def _refuse(words: str) -> int:
    print(words, file=sys.stderr)  # noqa: T201
    return 2
