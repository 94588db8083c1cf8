"""What happens when memory runs out in the middle of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import torch

from core.devices import empty_cache
from core.errors import ShortMemoryError

if TYPE_CHECKING:
    from core.pipelines.haploomni import HaploOmni

logger = logging.getLogger(__name__)
T = TypeVar("T")
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


class Work(Enum):
    """The three kinds of work that need much memory."""

    CHAT = "reading the conversation"
    DENOISE = "denoising"
    DECODE = "decoding the frames"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(sign in str(error).lower() for sign in _SIGNS)


def with_relief(omni: HaploOmni, work: Work, attempt: Callable[..., T], *given: object) -> T:
    """``attempt(*given)``; when memory runs out it is released, ``omni.relieve`` makes things smaller, and it is tried again.

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
        empty_cache(omni.device)
        change = omni.relieve(work) if omni.relieve is not None else None
        if change is None:
            raise ShortMemoryError(
                f"The memory ran out while {work.value}; choose a smaller size, fewer frames or a shorter conversation."
            )
        logger.warning("memory ran out while %s; going on with %s", work.value, change)
