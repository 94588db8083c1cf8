"""What happens when memory runs out in the middle of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import Protocol, TypeVar
from weakref import WeakSet

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


class ReclaimableCache(Protocol):
    """What a waiting job remembers and can make again, such as a conversation's keys and values."""

    @property
    def num_read(self) -> int:
        """How many tokens it holds."""
        ...

    def give_up(self) -> None:
        """Let them go; the job makes them again at its next turn."""
        ...


class OutOfMemoryPolicy(Protocol):
    """Where work is done, and what is done when memory runs out there.

    Attributes:
        caches: what jobs remember and can make again.
        on_out_of_memory: makes the work smaller and says how, None if it cannot.
    """

    device: torch.device
    caches: WeakSet[ReclaimableCache]
    on_out_of_memory: Callable[[MemoryPhase], str | None] | None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in str(error).lower() for sign in _SIGNS
    )


def retry_on_oom(
    policy: OutOfMemoryPolicy,
    phase: MemoryPhase,
    attempt: Callable[..., T],
    *given: object,
    keeping: ReclaimableCache | None = None,
) -> T:
    """``attempt(*given)``, tried again whenever memory runs out and :func:`make_room` has made some.

    Args:
        keeping: the attempt's own cache.

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
        make_room(policy, phase, keeping)


def make_room(policy: OutOfMemoryPolicy, phase: MemoryPhase, keeping: ReclaimableCache | None = None) -> None:
    """After an attempt that ran out of memory: release what it left, and make room for another.

    As long as others' caches are there, the largest is given up; then the work is made smaller.

    Args:
        keeping: the attempt's own cache, which stays.

    Raises:
        ShortMemoryError: nothing can be made smaller any more.
    """
    others = [cache for cache in policy.caches if cache is not keeping and cache.num_read]
    if others:
        largest = max(others, key=lambda cache: cache.num_read)
        logger.warning(
            "memory ran out while %s; %d tokens of another conversation will be read again",
            phase.value,
            largest.num_read,
        )
        largest.give_up()
        empty_cache(policy.device)
        return
    empty_cache(policy.device)
    change = policy.on_out_of_memory and policy.on_out_of_memory(phase)
    if change is None:
        raise ShortMemoryError(
            f"The memory ran out while {phase.value}; "
            "choose a smaller size, fewer frames or a shorter conversation."
        )
    logger.warning("memory ran out while %s; going on with %s", phase.value, change)
