"""A step of the paper's training as data: which parts learn, from which losses, on which rows, how fast."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from core.errors import ConfigError
from core.training.loop.config import TrainingConfig
from core.training.stages.parts import Part


class Loss(Enum):
    """What a stage learns from."""

    NEXT_TOKEN = "next_token"
    DIFFUSION = "diffusion"
    DISTILLATION = "distillation"
    IDENTITY = "identity"


class Source(Enum):
    """Where rows come from.

    ``PICTURE, PAIR, CLIP``: understanding, of pictures and clips.
    ``STILL, VIDEO``: generation, pictures and clips to denoise.
    ``PAIR`` is practice: pictures of two things, with questions about where they stand and nothing else.
    """

    PICTURE = "picture"
    PAIR = "pair"
    CLIP = "clip"
    STILL = "still"
    VIDEO = "video"


TALKS = (Source.PICTURE, Source.PAIR, Source.CLIP)
NOISE = (Source.STILL, Source.VIDEO)


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    Args:
        name: of its folder.
        trainable: parts with gradients; everything else is frozen.
        losses: what counts, and how much.
        rows: rows of every source in a batch; of clips to denoise in the first clip shape's tokens.
        config: steps, learning rate and optimizer.
        warmup: None after stage 1; else the part that is warmed up.
    """

    name: str
    trainable: tuple[Part, ...]
    losses: dict[Loss, float]
    rows: dict[Source, int]
    config: TrainingConfig
    warmup: Part | None = None

    def counts(self, loss: Loss, dialogue: bool) -> bool:
        """Whether a dialogue (else noise) is learned from by ``loss``."""
        if loss is Loss.DISTILLATION:
            return self.is_distilled(Part.PRE if dialogue else Part.POST)
        own = Loss.NEXT_TOKEN if dialogue else Loss.DIFFUSION
        return loss in self.losses and loss in (Loss.IDENTITY, own)

    def is_distilled(self, part: Part) -> bool:
        """Whether the prior that became ``part`` (the pre or the post one) teaches: where its part learns."""
        return Loss.DISTILLATION in self.losses and part in self.trainable

    def check(self) -> None:
        """Raises ConfigError when losses, data and parts do not belong together."""
        wanted = {
            Loss.NEXT_TOKEN: any(source in self.rows for source in TALKS),
            Loss.DIFFUSION: any(source in self.rows for source in NOISE),
        }
        if self.warmup is not None:
            wanted = {Loss.IDENTITY: True, Loss.DISTILLATION: True, Loss.DIFFUSION: self.warmup is Part.POST}
        missing = [loss.value for loss, needed in wanted.items() if needed and loss not in self.losses]
        if missing:
            raise ConfigError(
                f"Stage '{self.name}' draws data whose loss it does not count: {', '.join(missing)}."
            )
        if not self.rows or not self.trainable:
            raise ConfigError(f"Stage '{self.name}' needs data to draw and parts that learn.")
