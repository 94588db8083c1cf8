"""What a pipeline needs of a loaded checkpoint: its parts, their device, what to do when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from weakref import WeakSet

import torch

from core.pipelines.guidance import Guidance
from core.pipelines.out_of_memory import MemoryPhase, ReclaimableCache
from core.pipelines.preview import LatentRGB, measure_latent_rgb
from core.weights import LoadedCheckpoint


class Runtime:
    """A loaded checkpoint where it works. Not thread-safe: give one job a turn at a time.

    Attributes:
        model, processor, vae, scheduler: the parts.
        folder: where the checkpoint was read from.
        profile: the checkpoint's name, domain, defaults and limits.
        device: where the model works.
        guidance: how the two prompts of a clip share the machine.
        on_out_of_memory: asked when memory runs out; makes the work smaller and says how, None if it cannot.
        caches: of all conversations that are being answered; when memory runs out, others' go first.
    """

    def __init__(self, parts: LoadedCheckpoint, device: torch.device) -> None:
        self.model = parts.model
        self.processor = parts.processor
        self.vae = parts.vae
        self.scheduler = parts.scheduler
        self.profile = parts.profile
        self.folder = parts.folder
        self.device = device
        self.guidance = Guidance.BATCHED
        self.on_out_of_memory: Callable[[MemoryPhase], str | None] | None = None
        self.caches: WeakSet[ReclaimableCache] = WeakSet()
        self._preview = parts.preview

    @cached_property
    def latent_rgb(self) -> LatentRGB:
        """Factors for cheap previews: the checkpoint's own, or measured once on its autoencoder."""
        if self._preview is None:
            return measure_latent_rgb(self.vae)
        return LatentRGB(torch.tensor(self._preview.factors), torch.tensor(self._preview.bias))
