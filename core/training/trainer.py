"""The training loop, one for priors, stages and comparisons: accelerate's devices and processes, resumable, watchable."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

logger = logging.getLogger(__name__)


class Optimizer(Enum):
    """``ADAMW`` for everything (the paper's), or ``MUON`` for the blocks' matrices and AdamW for the rest."""

    ADAMW = "adamw"
    MUON = "muon"


@dataclass(frozen=True)
class Plan:
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


@dataclass(frozen=True)
class Share:
    """Which rows of a step's batch a micro-batch of a process draws: every ``parts``-th from ``index`` on."""

    step: int
    index: int = 0
    parts: int = 1

    def rows(self, total: int) -> range:
        """Row numbers of a batch of ``total`` rows."""
        return range(self.index, total, self.parts)


class Task(nn.Module, ABC):
    """What is trained: networks, data and losses.

    ``weights`` names the losses and says how much each counts. ``forward`` returns the SUM of every loss over its items,
    ``counts`` how many items there are: the loop divides by the items of all processes and micro-batches, so that the
    gradient does not depend on how a batch was dealt out.
    """

    weights: dict[str, float]

    @abstractmethod
    def draw(self, share: Share) -> dict[str, Any]:
        """The share's batches; depends on nothing but the seed and the share."""

    @abstractmethod
    def counts(self, batches: dict[str, Any]) -> dict[str, int]:
        """Items of every loss in ``batches``."""

    @abstractmethod
    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        """Summed losses by name; names outside ``weights`` are reported, not learned."""

    def measure(self) -> dict[str, float]:
        """Figures on data that training never sees; called now and then, with the averaged weights in place."""
        return {}

    def sample(self, folder: Path) -> None:
        """Write something to look at; called now and then, with the averaged weights in place."""


class SavedTask(Task):
    """A task whose result is a folder of its own."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learned."""


def learning_rate(step: int, plan: Plan) -> float:
    """Linear warmup, then half a cosine down to a fiftieth of the peak."""
    if step < plan.warmup:
        return plan.lr * (step + 1) / plan.warmup
    progress = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    return plan.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def build_optimizers(task: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """One or two optimizers over the parameters that learn."""
    matrices, rest = [], []
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            block = parameter.dim() == 2 and ("layers." in name or "transformer_blocks." in name)
            inside = (
                block and not any(part in name for part in ("SSG_", "indicator", "norm")) and plan.optimizer is Optimizer.MUON
            )
            (matrices if inside else rest).append(parameter)
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(torch.optim.Muon(matrices, lr=plan.lr, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"))
    if rest:
        made.append(torch.optim.AdamW(rest, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay))
    return made


def on_cpu(device: str) -> bool:
    """Whether ``device`` (auto or cpu) means the CPU on this machine."""
    return device == "cpu" or not torch.accelerator.is_available()


def join_processes(device: str) -> PartialState:
    """The processes that ``accelerate launch`` started.

    The first call decides: accelerate takes processes on CPUs for strangers unless it is told that they are on CPUs.
    """
    return PartialState(cpu=on_cpu(device))


def build_accelerator(folder: Path, device: str = "auto") -> Accelerator:
    """accelerate's view of the machine: what ``accelerate launch`` set up, bfloat16 unless it says otherwise."""
    watched = "tensorboard" if find_spec("tensorboard") else None
    if watched is None:
        logger.warning("TensorBoard is not installed: metrics go to metrics.jsonl only")
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "bf16")
    return Accelerator(
        mixed_precision=precision,
        cpu=on_cpu(device),
        log_with=watched,
        project_dir=str(folder),
        kwargs_handlers=[unused],
    )


class Trainer:
    """One run in a folder: ``state-N`` (newest state), ``metrics.jsonl``, ``plan.json``, TensorBoard events, samples.

    The data of step n depends on the seed and n alone, so a run that was killed and resumed repeats the uninterrupted one.

    Args:
        folder: made if missing; a run found there is resumed.
        task: its parameters with ``requires_grad`` learn.
        plan: how.
        accelerator: where; see :func:`build_accelerator`.
        save_every_s: seconds between saved states.
        sample_every: steps between calls of ``task.sample``; 0 for none.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        plan: Plan,
        accelerator: Accelerator,
        save_every_s: float = 120.0,
        sample_every: int = 0,
    ) -> None:
        self.folder, self.plan, self.accelerator = folder, plan, accelerator
        self.save_every_s, self.sample_every = save_every_s, sample_every
        self.step, self.seconds = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.optimizers = build_optimizers(task, plan)
        prepared = accelerator.prepare(task, *self.optimizers)
        self.wrapped, self.optimizers = prepared[0], list(prepared[1:])
        self.task: Task = accelerator.unwrap_model(self.wrapped)
        self.average = EMAModel(self._learning(), decay=plan.ema, use_ema_warmup=True, power=0.75) if plan.ema else None
        if self.average is not None:
            accelerator.register_for_checkpointing(self.average)
        self._resume()
        if accelerator.is_main_process:
            self._forget_later_metrics()
            said = {**asdict(plan), "processes": accelerator.num_processes, "device": str(accelerator.device)}
            (folder / "plan.json").write_text(json.dumps(said, indent=1, default=lambda v: v.value) + "\n")

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.task.parameters() if parameter.requires_grad]

    # -- state on disk

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*[0-9]"), key=lambda path: int(path.name.split("-")[1]))

    def _resume(self) -> None:
        states = self._states()
        if not states:
            return
        self.accelerator.load_state(str(states[-1]))
        if self.average is not None:
            self.average.to(self.accelerator.device)
        progress = json.loads((states[-1] / "progress.json").read_text())
        self.step, self.seconds = progress["step"], progress["seconds"]

    def _forget_later_metrics(self) -> None:
        """Drop what was reported after the state that the run goes on from: those steps come again."""
        file = self.folder / "metrics.jsonl"
        if file.exists():
            lines = [line for line in file.read_text().splitlines() if _whole_step(line) <= self.step]
            part = file.with_suffix(".part")
            part.write_text("".join(line + "\n" for line in lines))
            os.replace(part, file)

    def save(self) -> None:
        """Write the state under a temporary name, then rename: a kill leaves the old or the new one, never half."""
        final, part = self.folder / f"state-{self.step}", self.folder / "state.part"
        if final.exists():
            return
        if self.accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(part))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (part / "progress.json").write_text(json.dumps({"step": self.step, "seconds": self.seconds}))
            old = self._states()
            os.replace(part, final)
            for path in old:
                shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

    def report(self, values: dict[str, float]) -> None:
        """One line in the metrics file and one point a value in TensorBoard."""
        if not self.accelerator.is_main_process:
            return
        line = {"step": self.step, "seconds": round(self.seconds, 1), **{k: round(v, 5) for k, v in values.items()}}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.accelerator.log(values, step=self.step)

    # -- the loop

    def run(self, report_every: int = 10) -> None:
        """Run to the end of the plan; then the task holds the averaged weights."""
        accelerator, plan, first = self.accelerator, self.plan, self.step
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": self.step + 1}})
        saved = time.monotonic()
        self.wrapped.train()
        with ThreadPoolExecutor(1) as ahead:  # draws the next step's data while this one computes
            coming = ahead.submit(self._draw, self.step)
            bar = tqdm(
                total=plan.steps,
                initial=self.step,
                desc=self.folder.name,
                mininterval=2.0,
                disable=not accelerator.is_main_process,
            )
            while self.step < plan.steps:
                started = time.monotonic()
                batches = coming.result()
                if self.step + 1 < plan.steps:
                    coming = ahead.submit(self._draw, self.step + 1)
                due = accelerator.is_main_process and started - saved > self.save_every_s
                losses, due = self._learn(batches, due)
                self.step += 1
                self.seconds += time.monotonic() - started
                bar.update()
                if (self.step - 1) % report_every == 0 or self.step == plan.steps:
                    self.report({**losses, "lr": learning_rate(self.step - 1, plan)})
                    bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()})
                if self.sample_every and self.step % self.sample_every == 0:
                    self._sample()
                if due:
                    self.save()
                    saved = time.monotonic()
            bar.close()
        if self.step > first:
            self.save()
        if self.average is not None:
            self.average.copy_to(self._learning())
        for tracker in accelerator.trackers:
            tracker.finish()

    def _draw(self, step: int) -> list[dict[str, Any]]:
        """This process's micro-batches of one step."""
        parts = self.accelerator.num_processes * self.plan.accumulate
        begin = self.accelerator.process_index * self.plan.accumulate
        return [self.task.draw(Share(step, begin + micro, parts)) for micro in range(self.plan.accumulate)]

    def _learn(self, micro_batches: list[dict[str, Any]], due: bool) -> tuple[dict[str, float], bool]:
        """One optimizer step; the losses over all processes, and whether the main process wants the state saved."""
        accelerator, weights = self.accelerator, self.task.weights
        counts = [self.task.counts(batches) for batches in micro_batches]
        names = list(counts[0])
        totals = torch.tensor([float(sum(c[name] for c in counts)) for name in names] + [float(due)], device=accelerator.device)
        totals = accelerator.reduce(totals, "sum")
        items = dict(zip(names, totals.tolist(), strict=False))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.plan)
            optimizer.zero_grad(set_to_none=True)
        summed = dict.fromkeys(names, 0.0)
        for number, batches in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            with nullcontext() if last else accelerator.no_sync(self.wrapped):
                with accelerator.autocast():
                    losses = self.wrapped(batches)
                total = sum(
                    weights[name] * loss * (accelerator.num_processes / max(1.0, items[name]))
                    for name, loss in losses.items()
                    if name in weights
                )
                accelerator.backward(total)
            for name, loss in losses.items():
                summed[name] += loss.detach()
        if self.plan.clip_norm:
            accelerator.clip_grad_norm_(self._learning(), self.plan.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.step(self._learning())
        over_all = accelerator.reduce(torch.stack([torch.as_tensor(summed[n], device=accelerator.device) for n in names]), "sum")
        return {name: float(total) / max(1.0, items[name]) for name, total in zip(names, over_all, strict=True)}, bool(totals[-1])

    def _sample(self) -> None:
        """Figures and samples with the averaged weights, by the main process alone; none where it lacks the whole model."""
        if self.accelerator.is_main_process and not is_sharded():
            if self.average is not None:
                self.average.store(self._learning())
                self.average.copy_to(self._learning())
            self.task.eval()
            try:
                with torch.no_grad():
                    with self.accelerator.autocast():
                        self.report(self.task.measure())
                    self.task.sample(self.folder / "samples" / f"step-{self.step:06d}")
            finally:
                self.task.train()
                if self.average is not None:
                    self.average.restore(self._learning())
        self.accelerator.wait_for_everyone()


def _whole_step(line: str) -> float:
    """The step of a line of metrics; of a line that a kill cut short, later than any."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf


def is_sharded() -> bool:
    """Whether no process holds the whole model (FSDP, DeepSpeed)."""
    return AcceleratorState().distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def fit(
    folder: Path,
    task: Task,
    plan: Plan,
    device: str = "auto",
    sample_every: int = 0,
    keep: Callable[[dict[str, Tensor]], None] | None = None,
) -> None:
    """Train ``task`` to the end of ``plan``, or only load its result if the folder's run is finished.

    Args:
        keep: called on the main process with the finished task's whole state, to write what the run was for.
    """
    accelerator = build_accelerator(folder, device)
    trainer = Trainer(folder, task, plan, accelerator, sample_every=sample_every)
    trainer.run()
    if keep is not None:
        state = accelerator.get_state_dict(trainer.wrapped)  # from all processes, where they share it
        if accelerator.is_main_process:
            task.eval()
            keep(state)
    accelerator.wait_for_everyone()
