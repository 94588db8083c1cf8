"""A training's processes and devices, as ``accelerate launch`` set them up, and the share of each."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from core.devices import computes_bfloat16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchShard:
    """Which rows of a step's batch a micro-batch of a process draws: every ``parts``-th from ``index`` on."""

    step: int
    index: int = 0
    parts: int = 1

    def rows(self, total: int) -> range:
        """Row numbers of a batch of ``total`` rows."""
        return range(self.index, total, self.parts)


def on_cpu(device: str) -> bool:
    """Whether ``device`` (auto or cpu) means the CPU on this machine."""
    return device == "cpu" or not torch.accelerator.is_available()


def join_processes(device: str) -> PartialState:
    """The processes that ``accelerate launch`` started.

    The first call decides: accelerate takes processes on CPUs for strangers unless it is told where they are.
    """
    return PartialState(cpu=on_cpu(device))


def is_sharded() -> bool:
    """Whether no process holds the whole model (FSDP, DeepSpeed)."""
    return AcceleratorState().distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def build_accelerator(folder: Path, device: str = "auto") -> Accelerator:
    """accelerate's view of the machine: what ``accelerate launch`` set up.

    Unless that says otherwise, products are in bfloat16 where it is quick, else in float32.

    Args:
        folder: where TensorBoard's events go.
        device: ``auto`` or ``cpu``.
    """
    tracker = "tensorboard" if find_spec("tensorboard") else None
    if tracker is None:
        logger.warning("TensorBoard is not installed: metrics go to metrics.jsonl only")
    usual = "bf16" if computes_bfloat16(join_processes(device).device) else "no"
    return Accelerator(
        mixed_precision=os.environ.get("ACCELERATE_MIXED_PRECISION", usual),
        cpu=on_cpu(device),
        log_with=tracker,
        project_dir=str(folder),
        # stages freeze parts, and not every batch passes every part that learns
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
