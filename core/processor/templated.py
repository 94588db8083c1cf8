"""Rendered conversations as strings, and back to tokens, so that people's words stay words.

A rendered conversation is one string.
In it, a control token that the template wrote and the same letters typed by a person look alike.
So control tokens in people's words are put between two private-use characters, as transformers does.
These are taken out again where the string becomes tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from core.processor.prompts import control_tokens

_OPEN = "\U000f0000"
_CLOSE = "\U000f0001"


def as_string(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str | int]) -> str:
    """Rendered pieces as one string; control tokens in people's words are marked as words."""
    tokens = control_tokens(tokenizer)
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += tokens.sub(f"{_OPEN}\\g<0>{_CLOSE}", _unmarked(piece))
        else:
            text += str(tokenizer.convert_ids_to_tokens(piece))
    return text


def as_pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str | int]:
    """A rendered string as pieces: ids of control tokens not marked as words, and the texts between them."""
    marked = re.compile(f"({_OPEN}.*?{_CLOSE}|{control_tokens(tokenizer).pattern})", re.DOTALL)
    pieces: list[str | int] = []
    for part in marked.split(text):
        if part in tokenizer.get_added_vocab():
            pieces.append(int(tokenizer.convert_tokens_to_ids(part)))  # type: ignore[arg-type]
        elif words := _unmarked(part):
            # words and a marked token beside them are one text again
            if pieces and isinstance(pieces[-1], str):
                words = f"{pieces.pop()}{words}"
            pieces.append(words)
    return pieces


def _unmarked(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")
