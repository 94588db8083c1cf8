"""The released size with random weights: written, quantized while it is read, and run on a CPU. Slow: not in CI.

``python -m pytest tests/quantization/test_nine_b.py -m slow -s`` (20 GB of disk; HAPLO_9B names a folder to keep them in).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from app.memory import plan_memory
from app.settings import Settings
from core import HaploOmni, HaploOmniConfig
from core.pipelines.guidance import Guidance, PrefixDenoiser
from quantization.bnb import stored_weights
from quantization.modes import Weights
from quantization.synthesize import synthesize

LIMIT = 14 * 2**30


class Watch(threading.Thread):
    """The most memory this process holds itself: what is not mapped from files, sampled 20 times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.over = 0, threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self.over.wait(0.05):
            held = process.memory_info()
            self.peak = max(self.peak, held.rss - held.shared)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nine_billion_weights_in_14_gib(tmp_path):
    folder = Path(os.environ.get("HAPLO_9B", tmp_path / "9b"))
    if not (folder / "config.json").is_file():
        synthesize(folder, HaploOmniConfig(), released_vae=True, force=True)
    assert stored_weights(folder) is Weights.FULL
    watch = Watch()
    watch.start()
    settings = Settings(checkpoint=str(folder), device="cpu", dtype="bfloat16", weights="nf4")
    keeper, started = plan_memory(settings), time.monotonic()
    omni = HaploOmni.load(folder, "cpu", keeper.dtype, None, keeper.holding())
    keeper.attach(omni)
    loaded = time.monotonic() - started
    ask = [{"role": "user", "content": "Hello"}]
    words = "".join(omni.chat(ask, max_new_tokens=1))
    answered = time.monotonic() - started - loaded
    denoiser = PrefixDenoiser(omni.model, [[5, 6, 7], [8, 9]], 6.0)
    noise = torch.randn(1, 1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    velocity = denoiser.predict(noise, 999, Guidance.ONE_AT_A_TIME)
    stepped = time.monotonic() - started - loaded - answered
    watch.over.set()
    print(  # noqa: T201
        f"\nloaded in {loaded:.0f} s; one word {words!r} in {answered:.1f} s; one step in {stepped:.1f} s; "
        f"peak {watch.peak / 2**30:.2f} GiB; planned weights {sum(keeper.plan.costs.weights.values()) / 2**30:.2f} GiB"
    )
    assert bool(torch.isfinite(velocity).all())
    assert velocity.shape == (1, 1, 16, 4, 4)
    assert watch.peak < LIMIT
