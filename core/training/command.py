"""What the training commands share: messages, threads, and one sentence when something cannot be done."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import torch

from core.errors import HaploOmniError

EXTRAS = ("datasets", "matplotlib", "tensorboard")


def run_command(work: Callable[[], None], threads: int = 0) -> int:
    """Do ``work`` with ``threads`` CPU threads (0: PyTorch's choice).

    Returns:
        The exit code: 0, or 2 after one sentence on standard error.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    if threads:
        torch.set_num_threads(threads)
    try:
        work()
    except HaploOmniError as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return _refuse(f"This needs the package '{error.name}': pip install -r requirements-train.txt")
    return 0


def _refuse(words: str) -> int:
    print(words, file=sys.stderr)  # noqa: T201
    return 2
