"""How a run learns: steps, learning rate, optimizers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn


class Optimizer(Enum):
    """``ADAMW`` for everything (the paper's), or ``MUON`` for the blocks' matrices and AdamW for the rest."""

    ADAMW = "adamw"
    MUON = "muon"


@dataclass(frozen=True)
class TrainingConfig:
    """How a run learns.

    Args:
        steps: optimizer steps.
        lr: peak learning rate; a linear warmup of ``warmup`` steps, then half a cosine down to a fiftieth.
        betas, weight_decay: of AdamW.
        clip_norm: gradients are scaled down to this norm.
        ema: decay of the average that becomes the result; 0 for none.
        accumulate: micro-batches a step; the result is the same, the memory smaller.
        checkpointing: recompute activations in the backward pass instead of keeping them.
        seed: of all draws.
        seconds: for this session: after some steps their number is fitted to what is left; 0 for no end.
        workers: processes that draw rows, 0 for a thread of this one.
    """

    steps: int
    lr: float
    warmup: int = 50
    optimizer: Optimizer = Optimizer.ADAMW
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.0
    accumulate: int = 1
    checkpointing: bool = False
    seed: int = 0
    seconds: float = 0.0
    workers: int = 0

    def lasting(self) -> dict[str, Any]:
        """What a result depends on, however many sessions it took: all but a session's time and processes."""
        return {name: value for name, value in asdict(self).items() if name not in ("seconds", "workers")}


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warmup, then half a cosine down to a fiftieth of the peak."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def build_optimizers(task: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """One or two optimizers over the parameters that learn."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            orthogonal = config.optimizer is Optimizer.MUON and _is_block_matrix(name, parameter)
            (matrices if orthogonal else rest).append(parameter)
    decay = config.weight_decay
    made: list[torch.optim.Optimizer] = []
    if matrices:
        muon = torch.optim.Muon(matrices, lr=config.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        made.append(muon)
    if rest:
        made.append(torch.optim.AdamW(rest, lr=config.lr, betas=config.betas, weight_decay=decay))
    return made


def _is_block_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix of a block, modulation and norms aside."""
    in_block = parameter.dim() == 2 and ("layers." in name or "transformer_blocks." in name)
    return in_block and not any(part in name for part in ("SSG_", "indicator", "norm"))
