"""Counts the bytes of all tensors alive, on fake tensors of any size: what a forward pass would need, without doing it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracker(TorchDispatchMode):
    """Inside ``FakeTensorMode``: ``live`` and ``peak`` bytes of storages made while it is active; ``known`` are not counted."""

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.where = ""
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage(), str(func))
        return made

    def _count(self, storage: torch.UntypedStorage, func: str) -> None:
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.live += self.sizes[key]
        if self.live > self.peak:
            self.peak, self.where = self.live, func
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


@torch.no_grad()
def denoising_peak(model: Any, rows: int, noise_shape: tuple[int, int, int], prompt: int = 32) -> int:
    """Bytes of one denoising forward pass over latents (frames, height, width), without weights and prefix."""
    frames, height, width = noise_shape
    prefix = model(input_ids=torch.zeros(1, prompt, dtype=torch.long), return_prefix=True).prefix * rows
    latents = torch.zeros(rows, frames, 16, height, width, dtype=model.dtype)
    time = torch.full((rows,), 500)
    with Tracker([*model.parameters(), latents, time]) as tracker:
        model(latents=latents, timestep=time, prefix=prefix)
    return tracker.peak


@torch.no_grad()
def reading_peak(model: Any, tokens: int) -> int:
    """Bytes of reading so many words, keys and values included, without weights."""
    with Tracker(model.parameters()) as tracker:
        kept = model(input_ids=torch.zeros(1, tokens, dtype=torch.long), return_prefix=True)
    assert kept.prefix[0].length == tokens
    return tracker.peak


@torch.no_grad()
def decoding_peak(vae: Any, frames: int, height: int, width: int) -> int:
    """Bytes of decoding so many frames, without the decoder's weights."""
    latents = torch.zeros(1, vae.config.latent_channels, (frames - 1) // 4 + 1, height // 8, width // 8, dtype=vae.dtype)
    with Tracker([*vae.parameters(), latents]) as tracker:
        made = vae.decode(latents).sample
    assert made.shape[-3:] == (frames, height, width)
    return tracker.peak
