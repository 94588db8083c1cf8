"""The only place where an exception becomes words for a person."""

from __future__ import annotations

import logging

from core.errors import HaploOmniError
from quantization.errors import QuantizationError

logger = logging.getLogger(__name__)


class BusyError(HaploOmniError):
    """Too many jobs are waiting."""


def sentence(error: BaseException) -> str:
    """One clear sentence; what nobody expected goes to the log in full and to the page without details."""
    if isinstance(error, (HaploOmniError, QuantizationError)):
        return str(error)
    text = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        logger.error("out of memory", exc_info=error)
        return "The machine ran out of memory; try a smaller size, fewer frames or a shorter conversation."
    logger.error("unexpected error", exc_info=error)
    return "Something unexpected went wrong; the details are in the program's log. Please try again."
