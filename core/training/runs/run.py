"""A training run: steps one after the other, each skipped when its result is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from accelerate import PartialState

from core.errors import ConfigError
from core.training.loop.processes import join_processes

logger = logging.getLogger(__name__)


@dataclass
class RunContext:
    """Where a run works, and with whom.

    Args:
        folder: of the run.
        seed: of everything.
        device: ``auto`` or ``cpu``.
    """

    folder: Path
    seed: int = 0
    device: str = "auto"
    processes: PartialState = field(init=False)

    def __post_init__(self) -> None:
        self.processes = join_processes(self.device)


class Step(Protocol):
    """One thing to do in a run. Every process asks and does the same."""

    @property
    def name(self) -> str:
        """What the step is called on the command line."""

    def is_done(self) -> bool:
        """Whether the result is there already.

        Raises:
            CheckpointError: it is, but was made of something else.
        """

    def run(self) -> None:
        """Make the result, going on where an earlier session was cut off.

        Raises:
            CheckpointError: something that it needs is missing, or what was begun is made of something else.
        """


def run_step(step: Step, processes: PartialState) -> None:
    """Do a step that is not done, with all processes."""
    done = step.is_done()
    processes.wait_for_everyone()  # none begins to write while another still looks
    if not done:
        step.run()
        processes.wait_for_everyone()


@dataclass
class StepSequence:
    """Several steps under one name.

    Args:
        name: of them all.
        processes: that do them.
        compose: gives the steps in order; each is asked for when those before it are done, and may need them.
    """

    name: str
    processes: PartialState
    compose: Callable[[], Iterable[Step]]

    def is_done(self) -> bool:
        """Whether all of them are."""
        return all(step.is_done() for step in self.compose())

    def run(self) -> None:
        """Do those that are not done."""
        for step in self.compose():
            run_step(step, self.processes)


class TrainingRun:
    """Steps over one folder.

    Args:
        context: folder, seed, device and processes.
        steps: in their order.
    """

    def __init__(self, context: RunContext, *steps: Step) -> None:
        self.context = context
        self.steps = {step.name: step for step in steps}

    def run(self, *names: str) -> None:
        """The steps of these names, or all of them.

        Raises:
            ConfigError: the run has no such step.
        """
        for name in names or self.steps:
            if name not in self.steps:
                raise ConfigError(f"There is no part '{name}' in this run; it has {', '.join(self.steps)}.")
            logger.info("== %s", name)
            run_step(self.steps[name], self.context.processes)
