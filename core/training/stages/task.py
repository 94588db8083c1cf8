"""A stage of the training as a task for the loop: draws the stage's data and computes its losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from core.errors import ConfigError
from core.model.modeling import HaploOmniForConditionalGeneration
from core.schedule import build_scheduler
from core.training.data.noise import NoiseBatch
from core.training.data.packing import PackedBatch
from core.training.loop.processes import BatchShard
from core.training.loop.task import Task
from core.training.runs.samples import SampleWriter
from core.training.stages import losses
from core.training.stages.parts import Norms, Part, freeze
from core.training.stages.stage import TALKS, Loss, Source, Stage
from core.training.stages.teachers import Teachers

Batch = PackedBatch | NoiseBatch


class Rows(Protocol):
    """Draws batches of one source; ``key`` is a short name of what they are drawn from."""

    key: str

    def sample_batch(self, key: str, rows: int, share: BatchShard) -> Batch:
        """The share's part of a batch of ``rows``; ``key`` decides every draw."""


@dataclass
class Data:
    """What stages draw from, and what they are measured on."""

    training: Mapping[Source, Rows]
    held_out: Mapping[Source, Rows]


class StageTask(Task):
    """One stage over one model.

    Args:
        model: learns, in the parts the stage names.
        stage: the step of the way.
        data: where batches come from.
        teachers: needed by the stages that distil.
        seed: of all draws.
        norms: how the blocks' norms behave.
        sample_writer: draws samples now and then; None for none.
    """

    def __init__(
        self,
        model: HaploOmniForConditionalGeneration,
        stage: Stage,
        data: Data,
        teachers: Teachers | None = None,
        seed: int = 0,
        norms: Norms = Norms.ADAPTIVE,
        sample_writer: SampleWriter | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        self.data = data
        self.seed = seed
        self.sample_writer = sample_writer
        self.scheduler = build_scheduler()
        self.parameters_learning = freeze(model, stage.trainable, norms)
        if stage.config.checkpointing:
            model.gradient_checkpointing_enable()
        self.loss_weights = {
            f"{loss.value}/{source.value}": weight
            for source in stage.rows
            for loss, weight in stage.losses.items()
            if stage.counts(loss, source in TALKS)
        }
        self.vision = self.language = self.video = None
        if teachers is None and Loss.DISTILLATION in stage.losses:
            raise ConfigError(f"Stage '{stage.name}' learns from the priors, and none are given.")
        if teachers is not None and stage.is_distilled(Part.PRE):
            self.vision = teachers.vision.requires_grad_(False).eval()
        if teachers is not None and stage.is_distilled(Part.POST):
            self.language = teachers.language.requires_grad_(False).eval()
            self.video = teachers.video.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.lm_head.weight.device

    def sample_batch(self, share: BatchShard) -> dict[str, Any]:
        key = f"{self.seed}/{self.stage.name}/{share.step}"
        drawn = self.data.training
        return {
            source.value: drawn[source].sample_batch(f"{key}/{source.value}", rows, share)
            for source, rows in self.stage.rows.items()
        }

    def num_items(self, batches: dict[str, Any]) -> dict[str, int]:
        made: dict[str, int] = {}
        for name, batch in batches.items():
            made |= {f"{loss}/{name}": count for loss, count in self._counts(batch).items()}
        return made

    def _counts(self, batch: Batch) -> dict[str, int]:
        if isinstance(batch, PackedBatch):
            made = {Loss.NEXT_TOKEN.value: batch.count, **losses.pre_warmup_counts(self.model, batch)}
        else:
            made = {
                Loss.DIFFUSION.value: batch.count,
                Loss.DISTILLATION.value: batch.count,
                Loss.IDENTITY.value: int(batch.attention_mask.sum()),  # words
            }
        dialogue = isinstance(batch, PackedBatch)
        return {loss: count for loss, count in made.items() if self.stage.counts(Loss(loss), dialogue)}

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        """The stage's losses by loss and source: scalars, each summed over its items."""
        made: dict[str, Tensor] = {}
        for name, batch in batches.items():
            is_dialogue = isinstance(batch, PackedBatch)
            found = self._dialogue_losses(batch) if is_dialogue else self._noise_losses(batch)
            made |= {f"{loss}/{name}": value for loss, value in found.items()}
        return made

    def _dialogue_losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        if self.vision is None:
            return {Loss.NEXT_TOKEN.value: losses.next_token_loss(self.model, batch, self.device)}
        warmup = self.stage.warmup is not None
        compute = losses.pre_warmup_losses if warmup else losses.distilled_next_token_losses
        return compute(self.model, self.vision, batch, self.device)

    def _noise_losses(self, batch: NoiseBatch) -> dict[str, Tensor]:
        if self.video is None or self.language is None:
            loss = losses.diffusion_loss(self.model, self.scheduler, batch, self.device)
            return {Loss.DIFFUSION.value: loss}
        warmup = self.stage.warmup is not None
        compute = losses.post_warmup_losses if warmup else losses.distilled_diffusion_losses
        return compute(self.model, self.video, self.language, self.scheduler, batch, self.device)

    @torch.no_grad()
    def measure(self, rows: int = 0) -> dict[str, float]:
        """Losses and answers of fixed rows that training never sees, whatever the stage learns from.

        Args:
            rows: of every source; 0 for as many as the stage's largest source has.

        Returns:
            Means over the rows' items, by loss and source.
        """
        made: dict[str, float] = {}
        rows = rows or max(self.stage.rows.values())
        for source, held_out in self.data.held_out.items():
            batch = held_out.sample_batch(f"held out/{source.value}", rows, BatchShard(0))
            if isinstance(batch, PackedBatch):
                loss, right = losses.answer_accuracy(self.model, batch, self.device)
                made |= {
                    f"val/next_token/{source.value}": loss,
                    f"val/answer_accuracy/{source.value}": right,
                }
            else:
                loss = (
                    float(losses.diffusion_loss(self.model, self.scheduler, batch, self.device)) / batch.count
                )
                made[f"val/diffusion/{source.value}"] = loss
        return made

    def sample(self, folder: Path) -> None:
        """Answers and clips, once the whole way through the model exists (not in stage 1)."""
        if self.sample_writer is not None and self.stage.warmup is None:
            self.sample_writer.sample(self.model, folder)
