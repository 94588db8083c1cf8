"""What every form of the page shares: fields that hand over what was typed, errors as Gradio shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.components import Component

from app.errors import user_message

# of events whose work shows for itself, and that are no function for programs
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def as_typed(component: Component) -> Component:
    """``component``, handing over what was typed as it is.

    Gradio's own checks of a number field raise a TypeError for an empty or foreign value and words of their
    own for one out of range; here one rule, the request's, speaks everywhere.
    """
    component.preprocess = lambda payload: payload  # type: ignore[method-assign]
    return component


def page_error(error: BaseException) -> gr.Error:
    """What the page and programs are told of an error: one sentence."""
    return gr.Error(user_message(error), print_exception=False)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Whatever is raised within is raised as :func:`page_error`."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise page_error(error) from None
