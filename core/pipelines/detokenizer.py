"""Tokens to text while they come, so that a page can show an answer that grows."""

from __future__ import annotations

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast


class IncrementalDetokenizer:
    """Tokens to pieces of text that are never cut inside a character; special tokens say nothing."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.stream = DecodeStream(skip_special_tokens=True)
        self.held_back: list[int] = []

    def push(self, token: int) -> str:
        """The new text after ``token``; empty while a character is incomplete."""
        piece = self.stream.step(self.tokenizer.backend_tokenizer, token)
        if piece is None:
            self.held_back.append(token)
            return ""
        self.held_back.clear()
        return piece

    def finish(self) -> str:
        """What was held back: half a character, as U+FFFD."""
        return self.tokenizer.backend_tokenizer.decode(self.held_back, skip_special_tokens=True)
