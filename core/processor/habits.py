"""Options that other transformers processors take: they ask for what is done here anyway, or cannot be."""

from __future__ import annotations

from typing import Any

from core.errors import PromptError

NESTED = ("text_kwargs", "images_kwargs", "videos_kwargs", "common_kwargs")
# what each may be; None: anything, since it changes nothing here
# (the template has written its tokens, and nothing is cut off)
_TAKEN: dict[str, tuple[Any, ...] | None] = {
    "truncation": None,
    "add_special_tokens": None,
    "return_attention_mask": (True,),
    "return_token_type_ids": (False,),
    "return_mm_token_type_ids": (False,),
    "padding_side": ("left",),
    "padding": None,
    "return_tensors": ("pt",),
    "do_rescale": (True,),
    "do_resize": (True,),
    "do_sample_frames": (False,),
}


def check_options(options: dict[str, Any]) -> None:
    """Look through the options that change nothing here; those left at None ask for nothing.

    Raises:
        PromptError: one is unknown, or asks for something else.
    """
    for name, value in options.items():
        if name in NESTED and isinstance(value, dict):
            check_options(value)
        elif value is not None and name not in _TAKEN:
            raise PromptError(f"The option {name} is not known to this processor; leave it out.")
        elif value is not None and (allowed := _TAKEN[name]) is not None and value not in allowed:
            raise PromptError(
                f"The option {name}={value!r} cannot be here; leave it out, which means {allowed[0]!r}."
            )
