"""Counts the bytes of all tensors alive, on fake tensors: what a forward pass needs, without doing it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForImageTextToText

from core import HaploOmniConfig


class Tracker(TorchDispatchMode):
    """Inside ``FakeTensorMode``: ``live`` and ``peak`` bytes of storages that are made while it is active.

    Args:
        known: tensors that are not counted.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.live += self.sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


def released_model() -> Any:
    """The model of the released sizes in bfloat16; inside ``FakeTensorMode`` it takes no memory."""
    return AutoModelForImageTextToText.from_config(HaploOmniConfig(), dtype=torch.bfloat16).eval()


@torch.no_grad()
def denoising_peak(model: Any, rows: int, noise_shape: tuple[int, int, int], prompt: int = 32) -> int:
    """Bytes of one denoising pass over ``rows`` latents (F, h, w), without weights and prompt."""
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
    """Bytes of decoding so many frames of ``height`` x ``width`` pixels, without the decoder's weights."""
    latents = torch.zeros(
        1, vae.config.latent_channels, (frames - 1) // 4 + 1, height // 8, width // 8, dtype=vae.dtype
    )
    with Tracker([*vae.parameters(), latents]) as tracker:
        made = vae.decode(latents).sample
    assert made.shape[-3:] == (frames, height, width)
    return tracker.peak
