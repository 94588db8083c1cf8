"""The training loop, one for priors, stages and comparisons: on any devices, resumable, watchable."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from core.errors import CheckpointError
from core.training.loop.config import TrainingConfig, build_optimizers, learning_rate
from core.training.loop.metrics import append_metrics, keep_metrics_until
from core.training.loop.prefetch import prefetch
from core.training.loop.processes import BatchShard, build_accelerator, is_sharded
from core.training.loop.task import Task

CONFIG_FILE = "training_config.json"
FIRST_STEPS = 6  # slower than those that are timed
TIMED_STEPS = 20
SPARE = 0.95  # of the time that is left: saving and the last figures take some


class Trainer:
    """One training in a folder.

    The folder has ``state-N`` (the newest state), ``metrics.jsonl``, ``training_config.json``, samples, and
    TensorBoard's events.
    The data of step n depends on the seed and n alone, so a killed and resumed run repeats a whole one.

    Args:
        folder: made if missing; a run found there is resumed.
        task: its parameters with ``requires_grad`` learn.
        config: how.
        accelerator: where; see :func:`core.training.loop.processes.build_accelerator`.
        save_every_s: seconds between saved states.
        sample_every: steps between calls of ``task.measure`` and ``task.sample``; 0 for none.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        config: TrainingConfig,
        accelerator: Accelerator,
        save_every_s: float = 120.0,
        sample_every: int = 0,
    ) -> None:
        self.folder = folder
        self.config = config
        self.accelerator = accelerator
        self.save_every_s = save_every_s
        self.sample_every = sample_every
        self.step = 0
        self.seconds = 0.0  # of all sessions together
        self.timed_from = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        prepared = accelerator.prepare(task, *build_optimizers(task, config))
        self.wrapped = prepared[0]
        self.optimizers: list[torch.optim.Optimizer] = list(prepared[1:])
        self.task: Task = accelerator.unwrap_model(self.wrapped)
        self.ema: EMAModel | None = None
        if config.ema:
            self.ema = EMAModel(self._learning(), decay=config.ema, use_ema_warmup=True, power=0.75)
            accelerator.register_for_checkpointing(self.ema)
        self._resume()
        if accelerator.is_main_process:
            keep_metrics_until(folder, self.step)
            self._write_config()

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.task.parameters() if parameter.requires_grad]

    def _write_config(self) -> None:
        """How this session trains, for people."""
        accelerator = self.accelerator
        where = {"processes": accelerator.num_processes, "device": str(accelerator.device)}
        text = json.dumps(asdict(self.config) | where, indent=1, default=lambda value: value.value)
        (self.folder / CONFIG_FILE).write_text(text + "\n")

    # -- state on disk

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*[0-9]"), key=lambda path: int(path.name.split("-")[1]))

    def _resume(self) -> None:
        states = self._states()
        if not states:
            return
        try:
            self.accelerator.load_state(str(states[-1]))
            progress = json.loads((states[-1] / "progress.json").read_text())
            self.step = progress["step"]
            self.seconds = progress["seconds"]
        except Exception as error:  # files are missing, cut short, or of networks of other shapes
            raise CheckpointError(
                f"{states[-1]} cannot be gone on from ({_first_line(error)}); "
                f"delete {self.folder} to begin this part anew."
            ) from error
        if self.ema is not None:
            self.ema.to(self.accelerator.device)

    def save(self) -> None:
        """Write the state under a temporary name, then rename: a kill leaves the old one or the new one."""
        final = self.folder / f"state-{self.step}"
        part = self.folder / "state.part"
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
        rounded = {name: round(value, 5) for name, value in values.items()}
        append_metrics(self.folder, {"step": self.step, "seconds": round(self.seconds, 1), **rounded})
        self.accelerator.log(values, step=self.step)

    # -- the loop

    def run(self, report_every: int = 10) -> None:
        """Train to the config's last step; then the task holds the averaged weights."""
        accelerator = self.accelerator
        begun = saved = time.monotonic()
        first = self.step
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": self.step + 1}})
        self.wrapped.train()
        bar = self._progress_bar()
        coming = prefetch(self._sample_micro_batches, self.step, self.config.steps, self.config.workers)
        while self.step < self.config.steps:
            started = time.monotonic()
            due = accelerator.is_main_process and started - saved > self.save_every_s
            losses, due = self._train_step(next(coming), due)
            self.step += 1
            self.seconds += time.monotonic() - started
            bar.update()
            # what was learned from, now and then
            if (self.step - 1) % report_every == 0 or self.step == self.config.steps:
                self.report({**losses, "lr": learning_rate(self.step - 1, self.config)})
                bar.set_postfix({name: f"{loss:.3f}" for name, loss in losses.items()})
            # what came of it, more seldom
            if self.sample_every and self.step % self.sample_every == 0:
                self._sample()
            if due:
                self.save()
                saved = time.monotonic()
            # a session with a clock has as many steps as there is time for
            if self.config.seconds and self.step - first in (FIRST_STEPS, FIRST_STEPS + TIMED_STEPS):
                self._fit_to_time(begun, first)
                bar.total = self.config.steps
        bar.close()
        if self.step > first:
            self.save()
        if self.ema is not None:
            self.ema.copy_to(self._learning())
        for tracker in accelerator.trackers:
            tracker.finish()

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.config.steps,
            initial=self.step,
            desc=self.folder.name,
            mininterval=2.0,
            disable=not self.accelerator.is_main_process,
        )

    def _fit_to_time(self, begun: float, first: int) -> None:
        """Fit the number of steps to the time that is left, from how long the last steps took.

        Args:
            begun: when the session began, in seconds of the monotonic clock.
            first: the step it began with.
        """
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.monotonic()
        if self.step - first == FIRST_STEPS:
            self.timed_from = now
            return
        per_step = (now - self.timed_from) / TIMED_STEPS
        left = self.config.seconds - (now - begun)
        steps = torch.tensor([float(max(1, int(SPARE * left / per_step)))], device=self.accelerator.device)
        steps = self.accelerator.reduce(steps, "mean")  # all processes do the same number
        self.config = replace(self.config, steps=min(self.config.steps, self.step + int(steps)))
        self.report({"seconds_per_step": per_step, "steps": float(self.config.steps)})

    def _sample_micro_batches(self, step: int) -> list[dict[str, Any]]:
        """This process's micro-batches of one step."""
        accumulate = self.config.accumulate
        parts = self.accelerator.num_processes * accumulate
        begin = self.accelerator.process_index * accumulate
        return [self.task.sample_batch(BatchShard(step, begin + micro, parts)) for micro in range(accumulate)]

    def _train_step(self, micro_batches: list[dict[str, Any]], due: bool) -> tuple[dict[str, float], bool]:
        """One optimizer step.

        Returns:
            Every loss over the items of all processes, and whether the main process wants the state saved.
        """
        items, due = self._count_items(micro_batches, due)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.config)
            optimizer.zero_grad(set_to_none=True)
        summed = self._backward(micro_batches, items)
        if self.config.clip_norm:
            self.accelerator.clip_grad_norm_(self._learning(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.ema is not None:
            self.ema.step(self._learning())
        over_all = self.accelerator.reduce(torch.stack(list(summed.values())), "sum").tolist()
        losses = zip(summed, over_all, strict=True)
        return {name: total / max(1.0, items[name]) for name, total in losses}, due

    def _count_items(self, micro_batches: list[dict[str, Any]], due: bool) -> tuple[dict[str, float], bool]:
        """Items of every loss over all processes, and whether any process has ``due``, in one reduction."""
        counts = [self.task.num_items(batches) for batches in micro_batches]
        names = list(counts[0])
        own = [float(sum(count[name] for count in counts)) for name in names]
        totals = torch.tensor([*own, float(due)], device=self.accelerator.device)
        *items, wanted = self.accelerator.reduce(totals, "sum").tolist()
        return dict(zip(names, items, strict=True)), bool(wanted)

    def _backward(self, micro_batches: list[dict[str, Any]], items: dict[str, float]) -> dict[str, Tensor]:
        """Gradients of the weighted mean losses; returns every loss summed over this process's items."""
        accelerator = self.accelerator
        weights = self.task.loss_weights
        summed = {name: torch.zeros((), device=accelerator.device) for name in items}
        for number, batches in enumerate(micro_batches, start=1):
            # gradients are exchanged once, with the last micro-batch
            last = number == len(micro_batches)
            with nullcontext() if last else accelerator.no_sync(self.wrapped):
                with accelerator.autocast():
                    losses = self.wrapped(batches)
                # gradients are averaged over processes: times their number, that is the sum over all items
                total = sum(
                    weights[name] * loss * (accelerator.num_processes / max(1.0, items[name]))
                    for name, loss in losses.items()
                    if name in weights
                )
                accelerator.backward(total)
            for name, loss in losses.items():
                summed[name] = summed[name] + loss.detach()
        return summed

    def _sample(self) -> None:
        """Figures and samples with the averaged weights, on the main process, if it has the whole model."""
        if self.accelerator.is_main_process and not is_sharded():
            if self.ema is not None:
                self.ema.store(self._learning())
                self.ema.copy_to(self._learning())
            self.task.eval()
            try:
                with torch.no_grad():
                    with self.accelerator.autocast():
                        self.report(self.task.measure())
                    self.task.sample(self.folder / "samples" / f"step-{self.step:06d}")
            finally:
                self.task.train()
                if self.ema is not None:
                    self.ema.restore(self._learning())
        self.accelerator.wait_for_everyone()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".:")[:200]


def fit(
    folder: Path,
    task: Task,
    config: TrainingConfig,
    device: str = "auto",
    sample_every: int = 0,
    on_finish: Callable[[dict[str, Tensor]], None] | None = None,
) -> None:
    """Train ``task`` to the config's last step, or only load its result if the folder's run is finished.

    Args:
        folder: of the training; a run found there is resumed.
        task: its parameters with ``requires_grad`` learn.
        config: how.
        device: ``auto`` or ``cpu``.
        sample_every: steps between figures and samples; 0 for none.
        on_finish: called on the main process with the finished task's whole state (tensors of any shape, by
            parameter), to write the result.
    """
    accelerator = build_accelerator(folder, device)
    trainer = Trainer(folder, task, config, accelerator, sample_every=sample_every)
    trainer.run()
    if on_finish is not None:
        state = accelerator.get_state_dict(trainer.wrapped)  # from all processes, where they share it
        if accelerator.is_main_process:
            task.eval()
            on_finish(state)
    accelerator.wait_for_everyone()
