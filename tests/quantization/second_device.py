"""Builds and registers the second device of :file:`second_device.cpp`: ``torch.device("mtia", 0)``."""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch._dynamo

DEVICE = torch.device("mtia", 0)


def can_build() -> bool:
    """Whether a C++ compiler and ninja are at hand."""
    return bool(shutil.which("c++") or shutil.which("g++")) and shutil.which("ninja") is not None


BUILDING_S = 300.0  # longer than any build


@lru_cache
def second_device() -> Any:
    """The extension: ``live()`` and ``peak()`` bytes, ``reset_peak()``; built once a machine, in a minute."""
    from torch.utils import cpp_extension

    torch._dynamo.config.disable = True  # bitsandbytes compiles its plain kernels, which takes minutes
    torch.mtia._lazy_init = lambda: None
    torch.mtia.empty_cache = lambda: None
    torch.mtia.current_device = lambda: 0
    torch.mtia.device_count = lambda: 1
    source = Path(__file__).with_suffix(".cpp")
    folder = Path(tempfile.gettempdir()) / f"haploomni-second-device-{torch.__version__}"
    folder.mkdir(exist_ok=True)
    lock = folder / "lock"
    # PyTorch waits for ever for a builder that was killed
    if lock.exists() and time.time() - lock.stat().st_mtime > BUILDING_S:
        lock.unlink()
    return cpp_extension.load(
        "haploomni_second_device",
        [str(source)],
        extra_cflags=["-O1", "-w"],
        build_directory=str(folder),
    )
