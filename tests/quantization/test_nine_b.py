"""The released size with random weights: written, quantized while it is read, and run on a CPU.

Slow, so not in CI: ``python -m pytest tests/quantization/test_nine_b.py -m slow -s``.
It takes 20 GB of disk; HAPLO_9B names a folder to keep them in.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from app.engine.memory import MemoryManager, plan_memory
from app.settings import Settings
from core import HaploOmni
from core.pipelines.guidance import CachedPromptDenoiser, Guidance
from quantization.bnb import stored_weights
from quantization.export import export
from quantization.memory import Workload
from quantization.modes import Weights
from quantization.planner import Plan

LIMIT = 14 * 2**30


class Watch(threading.Thread):
    """The most memory this process holds itself: what is not mapped from files, sampled 20 times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.over = threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self.over.wait(0.05):
            held = process.memory_info()
            self.peak = max(self.peak, held.rss - held.shared)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The 9B-shaped checkpoint; written once, by another process: what its allocator keeps goes with it."""
    place = Path(os.environ.get("HAPLO_9B") or tmp_path_factory.mktemp("full") / "9b")
    if not (place / "config.json").is_file():
        subprocess.run(
            [sys.executable, "-m", "quantization.random_checkpoint", "--out", str(place), "--force"],
            check=True,
        )
    return place


def load(folder: Path) -> tuple[HaploOmni, MemoryManager, float]:
    """A model in 4 bits on the CPU, as the program loads it; its memory, and the seconds it took."""
    gc.collect()  # memory and model know each other: one that nothing else holds goes only now
    memory = plan_memory(Settings(checkpoint=str(folder), device="cpu", dtype="bfloat16", weights="nf4"))
    started = time.monotonic()
    omni = HaploOmni.load(folder, "cpu", memory.dtype, None, memory.load_options())
    memory.attach(omni)
    return omni, memory, time.monotonic() - started


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nine_billion_weights_in_14_gib(folder):
    assert stored_weights(folder) is Weights.FULL
    watch = Watch()
    watch.start()
    omni, memory, loaded = load(folder)
    loading = watch.peak
    started = time.monotonic()
    words = "".join(omni.chat([{"role": "user", "content": "Hello"}], max_new_tokens=1))
    answered = time.monotonic() - started
    denoiser = CachedPromptDenoiser(omni.model, [[5, 6, 7], [8, 9]], 6.0)
    noise = torch.randn(1, 1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    velocity = denoiser.predict(noise, 999, Guidance.ONE_AT_A_TIME)
    stepped = time.monotonic() - started - answered
    watch.over.set()
    planned = memory.planner.plan(Workload.of_size(1, 32, 32, chat_tokens=1))
    assert isinstance(planned, Plan)
    print(  # noqa: T201
        f"\nloaded in {loaded:.0f} s; one word {words!r} in {answered:.1f} s; one step in {stepped:.1f} s; "
        f"peak {watch.peak / 2**30:.2f} GiB, {loading / 2**30:.2f} of it while loading; "
        f"planned {planned.needed_bytes / 2**30:.2f} GiB, "
        f"{sum(planned.costs.weights.values()) / 2**30:.2f} of it weights"
    )
    assert bool(torch.isfinite(velocity).all())
    assert velocity.shape == (1, 1, 16, 4, 4)
    assert watch.peak < LIMIT


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_quantized_copy_loads_faster(folder, tmp_path):
    """The same weights, quantized while they load and stored quantized, loaded one after the other."""
    full = load(folder)[2]
    started = time.monotonic()
    copy = export(folder, tmp_path / "nf4", Weights.NF4)
    exported = time.monotonic() - started
    omni, _, quantized = load(copy)
    print(f"\nquantizing while loading {full:.0f} s; export {exported:.0f} s; the copy {quantized:.0f} s")  # noqa: T201
    assert omni.model.config.quantization_config is not None
    assert quantized < full
