"""A stage of the training as a task for the loop: draws the stage's data and computes its losses."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import CLIPVisionModel, Qwen2ForCausalLM

from core.errors import ConfigError
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.batches import Medium, NoiseBatch, Sentences, TalkBatch, collate_talks, talk_row
from core.training.losses import (
    answers_right,
    diffusion_loss,
    guided_noise_losses,
    guided_talk_losses,
    next_token_loss,
    post_warmup_losses,
    pre_warmup_counts,
    pre_warmup_losses,
)
from core.training.stages import TALKS, Loss, Norms, Part, Source, Stage, freeze
from core.training.studio import Studio
from core.training.trainer import Share, Task
from core.training.video import build_scheduler

Batch = TalkBatch | NoiseBatch


class Rows(Protocol):
    """Draws batches of one source."""

    def draw(self, key: str, rows: int, share: Share) -> Batch:
        """The share's part of a batch of ``rows``; ``key`` decides every draw."""
        ...


class SceneTalks:
    """Talks about procedural scenes.

    Args:
        sentences: of the family's tokenizer.
        medium: what the talks are about.
        length: tokens a row.
        held_out: combinations and phrasings that training never uses.
    """

    def __init__(self, sentences: Sentences, medium: Medium, length: int, held_out: bool = False) -> None:
        self.sentences, self.medium, self.length, self.held_out = sentences, medium, length, held_out

    def draw(self, key: str, rows: int, share: Share) -> TalkBatch:
        """The share's rows."""
        rngs = [random.Random(f"{key}/{row}") for row in share.rows(max(rows, share.parts))]
        made = [talk_row(self.sentences, rng, self.length, self.medium, self.held_out) for rng in rngs]
        return collate_talks(made, self.sentences.pad)


@dataclass
class Data:
    """What stages draw from, and what they are measured on."""

    training: Mapping[Source, Rows]
    held_out: Mapping[Source, Rows]


@dataclass
class Teachers:
    """The priors, for the stages that learn from them."""

    vision: CLIPVisionModel
    language: Qwen2ForCausalLM
    video: Any


class StageTask(Task):
    """One stage over one model.

    Args:
        model: learns, in the parts the stage names.
        stage: the step of the way.
        data: where batches come from.
        teachers: needed by the stages that distil.
        seed: of all draws.
        norms: how the blocks' norms behave.
        studio: draws samples now and then; None for none.
    """

    def __init__(
        self,
        model: HaploOmniForConditionalGeneration,
        stage: Stage,
        data: Data,
        teachers: Teachers | None = None,
        seed: int = 0,
        norms: Norms = Norms.ADAPTIVE,
        studio: Studio | None = None,
    ) -> None:
        super().__init__()
        self.model, self.stage, self.data, self.seed = model, stage, data, seed
        self.studio = studio
        self.scheduler = build_scheduler()
        self.parameters_learning = freeze(model, stage.learns, norms)
        if stage.plan.checkpointing:
            model.gradient_checkpointing_enable()
        self.weights = {
            f"{loss.value}/{source.value}": weight
            for source in stage.rows
            for loss, weight in stage.losses.items()
            if stage.counts(loss, source in TALKS)
        }
        self.vision = self.language = self.video = None
        if teachers is None and Loss.DISTILLATION in stage.losses:
            raise ConfigError(f"Stage '{stage.name}' learns from the priors, and none are given.")
        if teachers is not None and stage.taught(Part.PRE):
            self.vision = teachers.vision.requires_grad_(False).eval()
        if teachers is not None and stage.taught(Part.POST):
            self.language = teachers.language.requires_grad_(False).eval()
            self.video = teachers.video.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        return self.model.lm_head.weight.device

    def draw(self, share: Share) -> dict[str, Any]:
        key = f"{self.seed}/{self.stage.name}/{share.step}"
        drawn = self.data.training
        return {
            source.value: drawn[source].draw(f"{key}/{source.value}", rows, share) for source, rows in self.stage.rows.items()
        }

    def counts(self, batches: dict[str, Any]) -> dict[str, int]:
        made: dict[str, int] = {}
        for name, batch in batches.items():
            for loss, count in self._counts(batch).items():
                made[f"{loss}/{name}"] = count
        return made

    def _counts(self, batch: Batch) -> dict[str, int]:
        talk = isinstance(batch, TalkBatch)
        if isinstance(batch, TalkBatch):
            made = {Loss.NEXT_TOKEN.value: batch.count, **pre_warmup_counts(self.model, batch)}
        else:
            words = int(batch.attention_mask.sum())
            made = {Loss.DIFFUSION.value: batch.count, Loss.DISTILLATION.value: batch.count, Loss.IDENTITY.value: words}
        return {loss: count for loss, count in made.items() if self.stage.counts(Loss(loss), talk)}

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for name, batch in batches.items():
            for loss, value in self._losses(batch).items():
                losses[f"{loss}/{name}"] = value
        return losses

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        device, model, warmup = self.device, self.model, self.stage.warmup is not None
        if isinstance(batch, TalkBatch):
            if self.vision is None:
                return {Loss.NEXT_TOKEN.value: next_token_loss(model, batch, device)}
            return (pre_warmup_losses if warmup else guided_talk_losses)(model, self.vision, batch, device)
        if self.video is None:
            return {Loss.DIFFUSION.value: diffusion_loss(model, self.scheduler, batch, device)}
        assert self.language is not None
        losses = post_warmup_losses if warmup else guided_noise_losses
        return losses(model, self.video, self.language, self.scheduler, batch, device)

    @torch.no_grad()
    def measure(self, rows: int = 0) -> dict[str, float]:
        """Losses and answers of fixed rows that training never sees, whatever the stage learns from.

        Args:
            rows: of every source; 0 for as many as the stage's largest source has.
        """
        made: dict[str, float] = {}
        rows = rows or max(self.stage.rows.values())
        for source, held_out in self.data.held_out.items():
            batch = held_out.draw(f"held out/{source.value}", rows, Share(0))
            if isinstance(batch, TalkBatch):
                loss, right = answers_right(self.model, batch, self.device)
                made |= {f"held out/next token/{source.value}": loss, f"held out/answers right/{source.value}": right}
            else:
                loss = float(diffusion_loss(self.model, self.scheduler, batch, self.device)) / batch.count
                made[f"held out/diffusion/{source.value}"] = loss
        return made

    def sample(self, folder: Path) -> None:
        """Answers and clips, once the whole way through the model exists (not in stage 1)."""
        if self.studio is not None and self.stage.warmup is None:
            self.studio.sample(self.model, folder)
