"""Two threads on a quiet and a busy machine: ones that soon give their core away, against OpenMP's default.

Each figure is of a process of its own, since OpenMP reads how long its threads spin when it is loaded.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from itertools import islice

from tests import ROOT
from tests.bench.table import row

DEFAULT_SPINS = "300000"  # of GNU OpenMP, while there are no more threads than cores
OURS = "1000"  # see core/__init__.py
STEPS = 30
_BUSY = "while True: pass"


def step_ms(spins: str, busy: bool) -> float:
    """The middle time of a denoising step in a process with two threads, beside a busy program or none."""
    other = None
    if busy:
        other = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:
        environ = {**os.environ, "GOMP_SPINCOUNT": spins, "OMP_NUM_THREADS": "2"}
        command = [sys.executable, "-m", "tests.bench.threads"]
        return float(
            subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True).stdout
        )
    finally:
        if other is not None:
            other.kill()
            other.wait()


def bench_threads() -> list[str]:
    """A row for the quiet machine and one for the busy one."""
    return [
        row(
            f"denoising step, two threads, {label}",
            step_ms(OURS, busy),
            step_ms(DEFAULT_SPINS, busy),
            "ms",
            "OpenMP's default spinning",
        )
        for label, busy in (("quiet", False), ("beside a busy program", True))
    ]


def main() -> None:
    """Print the middle time of the bundled model's denoising steps, in milliseconds."""
    from core import HaploOmni

    omni = HaploOmni.load(None, device="cpu")
    times = []
    last = time.perf_counter()
    steps = omni.text_to_video("a red circle moving left", num_inference_steps=STEPS, seed=1)
    for _ in islice(steps, STEPS):
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
    print(1000 * statistics.median(times[1:]))


if __name__ == "__main__":
    main()
