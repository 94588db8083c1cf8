"""A long conversation read in chunks, against the same in one pass."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import DynamicCache

from core.pipelines.chat import prepare
from core.pipelines.prefill import TalkCache
from tests.bench.table import row

TOKENS = 4096  # more than the bundled model answers, which does not matter for the time


def bench_reading(omni: Any, repeats: int) -> list[str]:
    """The longest step, for which others wait, and all steps, for which the person who asked waits."""
    inputs = prepare(omni, [{"role": "user", "content": "red " * TOKENS}])
    inputs = {key: value[:, :TOKENS] for key, value in inputs.items()}
    in_steps = [_step_times(omni, inputs) for _ in range(repeats)]
    at_once = min(_one_pass_s(omni, inputs) for _ in range(repeats))
    longest = min(max(times) for times in in_steps)
    whole = min(sum(times) for times in in_steps)
    return [
        row(f"longest step of reading {TOKENS} tokens", 1e3 * longest, 1e3 * at_once, "ms", "one pass"),
        row("all its steps", 1e3 * whole, 1e3 * at_once, "ms", "one pass"),
    ]


def _step_times(omni: Any, inputs: dict[str, torch.Tensor]) -> list[float]:
    """Seconds of every step of reading."""
    steps = TalkCache(omni, inputs).read()
    next(steps)  # stands before the first chunk
    times = []
    done = False
    while not done:
        began_s = time.perf_counter()
        done = next(steps, None) is None
        times.append(time.perf_counter() - began_s)
    return times


@torch.no_grad()
def _one_pass_s(omni: Any, inputs: dict[str, torch.Tensor]) -> float:
    """Seconds of the model's own forward."""
    given = {key: value.to(omni.device) for key, value in inputs.items()}
    began_s = time.perf_counter()
    omni.model(**given, cache=DynamicCache(), logits_to_keep=1).logits.cpu()
    return time.perf_counter() - began_s
