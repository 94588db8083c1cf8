"""The next steps' batches are sampled while this one computes: by a thread or by processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.utils.data import DataLoader, Dataset

AHEAD = 4  # steps that every process has sampled before they are asked for


class _Steps(Dataset):
    def __init__(self, sample_batch: Callable[[int], Any]) -> None:
        self.sample_batch = sample_batch

    def __getitem__(self, step: int) -> Any:
        return self.sample_batch(step)


def prefetch(sample_batch: Callable[[int], Any], first: int, last: int, workers: int = 0) -> Iterator[Any]:
    """``sample_batch(step)`` for every step from ``first`` up to ``last``, in order.

    Args:
        workers: processes that sample; 0 for one thread of this process.
    """
    if workers:
        yield from DataLoader(
            _Steps(sample_batch),
            sampler=range(first, last),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=AHEAD,
            multiprocessing_context="fork",
        )
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(sample_batch, first)
        for step in range(first, last):
            sampled = coming.result()
            if step + 1 < last:
                coming = thread.submit(sample_batch, step + 1)
            yield sampled
