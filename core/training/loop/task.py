"""What the loop trains: networks with their data and losses, under one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core.training.loop.processes import BatchShard


class Task(nn.Module, ABC):
    """What is trained: networks, data and losses.

    ``loss_weights`` names the losses and says how much each counts.
    ``forward`` returns the SUM of every loss over its items, ``num_items`` how many items there are.
    The loop divides by the items of all processes and micro-batches, so the gradient does not depend on how a
    batch was dealt out.
    """

    loss_weights: dict[str, float]

    @abstractmethod
    def sample_batch(self, share: BatchShard) -> dict[str, Any]:
        """The share's batches; depends on nothing but the seed and the share."""

    def num_items(self, batches: dict[str, Any]) -> dict[str, int]:
        """Items of every loss in ``batches``; by default a batch has one loss, over all that it counts."""
        return {name: batch.count for name, batch in batches.items()}

    @abstractmethod
    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        """Summed losses (scalars) by name; names outside ``loss_weights`` are reported, not learned."""

    def measure(self) -> dict[str, float]:
        """Figures on data that training never sees; called now and then, with the averaged weights."""
        return {}

    def sample(self, folder: Path) -> None:
        """Write something to look at; called now and then, with the averaged weights."""


class SavedTask(Task):
    """A task whose result is a folder of its own."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learned."""
