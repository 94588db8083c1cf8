"""The only place where an exception becomes words for a person."""

from __future__ import annotations

import logging

from app.startup.versions import versions_line
from core.errors import HaploOmniError
from core.pipelines.out_of_memory import is_out_of_memory
from core.text import whole_text

logger = logging.getLogger(__name__)
UNEXPECTED = "Something unexpected went wrong; the details are in the program's log. Please try again."


def user_message(error: BaseException) -> str:
    """One clear sentence; what nobody expected goes to the log in full and to the page without details."""
    if isinstance(error, HaploOmniError):
        return whole_text(str(error))
    if is_out_of_memory(error):
        logger.error("out of memory", exc_info=error)
        return "The machine ran out of memory; try a smaller size, fewer frames or a shorter conversation."
    logger.error("unexpected error; %s", versions_line(), exc_info=error)
    return UNEXPECTED
