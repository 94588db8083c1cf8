"""Run by ``accelerate launch``: one step of unified tuning with parameters shared out block by block, on two CPU processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard

from core.model.decoder import Block
from core.training.stage_task import StageTask
from core.training.stages import unguided
from core.training.trainer import Share
from tests.training import miniature


def main(folder: Path) -> None:
    """Losses before and after one step, over all processes; what accelerate's FSDP 2 does, without its need for GPUs."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    task = StageTask(miniature.model(), unguided(miniature.stages())[-1], miniature.data(folder / f"clips-{rank}"))
    whole = sum(parameter.numel() for parameter in task.parameters())
    for module in task.modules():
        if isinstance(module, Block):
            fully_shard(module)
    fully_shard(task)
    held = sum(parameter.to_local().numel() for parameter in task.parameters())
    optimizer = torch.optim.SGD(task.parameters(), lr=0.005)
    batches = task.draw(Share(0, rank, ranks))
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
