"""A training run on disk: state that survives a kill, a metrics file, a progress bar."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm


class Run:
    """One resumable run in a folder: ``state.pt`` (newest state), ``metrics.jsonl`` (one line a report).

    The data of step ``n`` depends on the seed and ``n`` alone, so a run that was killed and resumed repeats the
    uninterrupted one.

    Args:
        folder: made if missing.
        modules: named modules and optimizers whose ``state_dict`` makes up the state.
        save_every_s: seconds between saved states.
    """

    def __init__(self, folder: Path, modules: dict[str, Any], save_every_s: float = 120.0) -> None:
        self.folder = folder
        self.modules = modules
        self.save_every_s = save_every_s
        self.step = 0
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._state_file = folder / "state.pt"
        self._load()

    def _load(self) -> None:
        if not self._state_file.exists():
            return
        state = torch.load(self._state_file, map_location="cpu", weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        """Write the state under a temporary name, then rename: a kill leaves the old or the new one, never half."""
        state = {name: module.state_dict() for name, module in self.modules.items()}
        temporary = self._state_file.with_suffix(".part")
        torch.save({**state, "step": self.step, "seconds": self.seconds}, temporary)
        os.replace(temporary, self._state_file)

    def report(self, **values: float) -> None:
        """Append one line to the metrics file."""
        line = {"step": self.step, "seconds": round(self.seconds, 1), **{k: round(float(v), 5) for k, v in values.items()}}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def steps(self, total: int, label: str) -> Iterator[tuple[int, tqdm]]:
        """Yield (step, bar) from the resumed step to ``total``; saves on the way and at the end."""
        saved, first = time.monotonic(), self.step
        with tqdm(total=total, initial=self.step, desc=label, dynamic_ncols=True, mininterval=2.0) as bar:
            while self.step < total:
                started = time.monotonic()
                yield self.step, bar
                self.step += 1
                self.seconds += time.monotonic() - started
                bar.update()
                if time.monotonic() - saved > self.save_every_s:
                    self.save()
                    saved = time.monotonic()
        if self.step > first:
            self.save()


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warmup, then half a cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
