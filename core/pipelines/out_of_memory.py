"""What happens when memory runs out in the middle of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import Protocol, TypeVar

import torch

from core.devices import empty_cache
from core.errors import ShortMemoryError

logger = logging.getLogger(__name__)
T = TypeVar("T")
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


class MemoryPhase(Enum):
    """The three kinds of work that need much memory."""

    CHAT = "reading the conversation"
    DENOISE = "denoising"
    DECODE = "decoding the frames"


class OutOfMemoryPolicy(Protocol):
    """Where work is done, and who is asked to make it smaller: says how, or None when it cannot be."""

    device: torch.device
    on_out_of_memory: Callable[[MemoryPhase], str | None] | None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in str(error).lower() for sign in _SIGNS
    )


def retry_on_oom(
    policy: OutOfMemoryPolicy, phase: MemoryPhase, attempt: Callable[..., T], *given: object
) -> T:
    """``attempt(*given)``, tried again whenever memory runs out.

    Before, the memory that the attempt left is released and the policy makes the work smaller.

    Raises:
        ShortMemoryError: nothing can be made smaller any more.
    """
    while True:
        try:
            return attempt(*given)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # outside the handler, so that the failed attempt's tensors are gone with its traceback
        make_room(policy, phase)


def make_room(policy: OutOfMemoryPolicy, phase: MemoryPhase) -> None:
    """After an attempt that ran out of memory: release what it left and make the work smaller.

    Raises:
        ShortMemoryError: nothing can be made smaller any more.
    """
    empty_cache(policy.device)
    change = policy.on_out_of_memory and policy.on_out_of_memory(phase)
    if change is None:
        raise ShortMemoryError(
            f"The memory ran out while {phase.value}; "
            "choose a smaller size, fewer frames or a shorter conversation."
        )
    logger.warning("memory ran out while %s; going on with %s", phase.value, change)
