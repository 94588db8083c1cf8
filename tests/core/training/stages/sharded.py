"""Run by ``accelerate launch``: a step of unified tuning, parameters shared out over two CPU processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard

from core.model.decoder import Block
from core.training.loop.processes import BatchShard
from core.training.stages.presets import without_distillation
from core.training.stages.task import StageTask
from tests.core.training import miniature


def main(folder: Path) -> None:
    """Losses before and after one step, over all processes: accelerate's FSDP 2 without its need for GPUs."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    task = StageTask(
        miniature.model(),
        without_distillation(miniature.stages())[-1],
        miniature.data(folder / f"clips-{rank}"),
    )
    whole = sum(parameter.numel() for parameter in task.parameters())
    for module in task.modules():
        if isinstance(module, Block):
            fully_shard(module)
    fully_shard(task)
    held = sum(parameter.to_local().numel() for parameter in task.parameters())
    optimizer = torch.optim.SGD(task.parameters(), lr=0.005)
    batches = task.sample_batch(BatchShard(0, rank, ranks))
    seen = []
    for _ in range(2):
        losses = task(batches)
        total = torch.stack([loss / 100 for loss in losses.values()]).sum()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        summed = torch.stack([loss.detach() for loss in losses.values()])
        distributed.all_reduce(summed)
        seen.append(dict(zip(losses, summed.tolist(), strict=True)))
    if rank == 0:
        (folder / "sharded.json").write_text(json.dumps({"losses": seen, "held": held / whole}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
