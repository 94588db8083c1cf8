"""What people type and programs send, which can be anything, as the values that requests take."""

from __future__ import annotations

from typing import Any

from core.errors import PromptError, RequestError
from core.requests import brief
from core.text import whole_text

EXACT = 2**53  # up to here every whole number is a float, so 9.0 is 9


def integer(value: Any) -> Any:
    """9.0 as 9; whatever is no whole number stays as it is, for the request's check to name."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    return value


def whole(label: str, value: Any, otherwise: int) -> int:
    """A whole number, or ``otherwise`` for a field left empty.

    Raises:
        RequestError: it is none.
    """
    value = integer(otherwise if value is None else value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > EXACT:
        raise RequestError(f"{label} must be a whole number, not {brief(value)}.")
    return value


def number(label: str, value: Any, otherwise: float) -> float:
    """A number, or ``otherwise`` for a field left empty; NaN and infinity pass, for the range check to name.

    Raises:
        RequestError: it is none.
    """
    value = otherwise if value is None else value
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or (isinstance(value, int) and abs(value) > EXACT)
    ):
        raise RequestError(f"{label} must be a number, not {brief(value)}.")
    return float(value)


def text(label: str, value: Any) -> str:
    """Whole Unicode; a field left empty is an empty text.

    Raises:
        PromptError: it is no text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PromptError(f"{label} must be text, not {brief(value)}.")
    return whole_text(value)
