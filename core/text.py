"""Words as people and programs send them, made whole before anything reads them."""

from __future__ import annotations

import re

# control characters that mean nothing in a sentence; tabs and ends of lines and pages part words, and stay
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")


def whole_text(text: str) -> str:
    """``text`` as whole Unicode: halves of a character are joined or become U+FFFD, control characters go.

    A program that cuts an emoji in two leaves half a surrogate pair.
    No tokenizer, file or log can take it.
    """
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _CONTROLS.sub("", joined)
