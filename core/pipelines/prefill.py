"""A conversation in the model: read in chunks, remembered, and read again where its memory was needed.

This is chunked prefill: some hundred tokens at a time go through all blocks and leave keys and values.
Between two chunks others have their turns and a stop is heard.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, DynamicCache

from core.pipelines.out_of_memory import MemoryPhase, retry_on_oom
from core.pipelines.runtime import Runtime

CHUNK_TOKENS = 512
"""Tokens of a chunk.

A pass reads all weights once, so short chunks waste time. A card such as an H200 makes 206 operations while
it reads a byte, and computes without a pause from some 200 tokens on. More of them only make steps longer.
"""


@dataclass(frozen=True)
class PrefillStep:
    """``index`` of ``total`` chunks of a conversation are read; the next step reads another."""

    index: int
    total: int


def chunk_ends(starts: Tensor) -> list[int]:
    """Where the chunks of a conversation end, the last at its end; chunks are as short as may be.

    A cut between two tokens is right if nothing behind it is seen from before it.
    So pictures and frames stay whole, and a chunk that meets one ends behind it.
    A chunk has at least :data:`CHUNK_TOKENS` tokens, and a rest of less than half of that joins the last one.

    Args:
        starts: start indices [S], see :mod:`core.model.masks`.
    """
    length = len(starts)
    # the earliest start of a token and all behind it: a border is where it lies no further back
    earliest = starts.flip(0).cummin(0).values.flip(0)
    borders = (earliest >= torch.arange(length, device=starts.device)).nonzero()[:, 0].tolist()
    ends = [0]
    for border in borders:
        if border - ends[-1] >= CHUNK_TOKENS and length - border >= CHUNK_TOKENS // 2:
            ends.append(border)
    return [*ends[1:], length]


class TalkCache:
    """A conversation's tokens, and the keys and values of those that are read.

    The keys and values can go between any two steps: they are then read again when they are next needed.
    The prompt is read in the chunks of the first time, so its keys and values are the same, bit for bit.

    Args:
        runtime: knows this cache for as long as it lives, and may give it up.
        inputs: of one conversation without padding, see :func:`core.pipelines.chat.prepare`.

    Attributes:
        ids: all tokens [1, S], on the CPU.
    """

    def __init__(self, runtime: Runtime, inputs: BatchFeature) -> None:
        self.runtime = runtime
        self.inputs = dict(inputs)
        self.inputs.pop("attention_mask")  # nothing is padded
        self.ids: Tensor = inputs["input_ids"].cpu()
        self._prompt_length = self.ids.shape[1]
        starts: Tensor = inputs["attention_start_ids"][0].cpu()
        if runtime.model.config.visual_attention == "causal":
            # pictures are read like words, and may be cut like them
            starts = torch.arange(len(starts))
        self._prompt_ends = chunk_ends(starts)
        self._cache = DynamicCache()
        self._was_given_up = False
        runtime.caches.add(self)

    @property
    def num_read(self) -> int:
        """How many tokens are read."""
        return int(self._cache.get_seq_length())

    def append(self, token: Tensor) -> None:
        """The conversation goes on with ``token``, ids [B, 1] of the one conversation, so that B is 1."""
        self.ids = torch.cat([self.ids, token], dim=1)

    def give_up(self) -> None:
        """Let the keys and values go."""
        self._cache = DynamicCache()
        self._was_given_up = True

    def read(self) -> Generator[PrefillStep, None, Tensor]:
        """Read all tokens that are not read yet; where they are several chunks, with a step before each.

        What was given up is read in a single step: of two conversations that take each other's memory
        neither would else ever be done.

        Returns:
            Scores [1, V] of the next token, on the CPU.

        Raises:
            ShortMemoryError: memory ran out, and nothing could be given up or made smaller.
        """
        ends = self._ends()
        while True:
            if len(ends) > 1 and self.num_read < self._prompt_length and not self._was_given_up:
                yield PrefillStep(sum(end <= self.num_read for end in ends), len(ends))
            # only now: meanwhile all may have been given up
            end = next(end for end in ends if end > self.num_read)
            scores = retry_on_oom(self.runtime, MemoryPhase.CHAT, self._read_until, end, keeping=self)
            if end == ends[-1]:
                return scores

    def _ends(self) -> list[int]:
        """Where chunks end: those of the prompt and, apart from it, of the answer as far as it goes."""
        length = self.ids.shape[1]
        if length == self._prompt_length:
            return self._prompt_ends
        return [*self._prompt_ends, *range(self._prompt_length + CHUNK_TOKENS, length, CHUNK_TOKENS), length]

    @torch.no_grad()
    def _read_until(self, end: int) -> Tensor:
        """One pass, and the scores [1, V] behind its last token; if it fails, the cache is as it was."""
        begin = self.num_read
        device = self.runtime.device
        given: dict[str, Any] = {"input_ids": self.ids[:, begin:end].to(device)}
        if begin < self._prompt_length:
            # the prompt as a whole, pictures and clips included, and of it what the cache does not hold
            given = {key: _moved(value, device) for key, value in self.inputs.items()}
            given["read_until"] = end
        try:
            output = self.runtime.model(**given, cache=self._cache, logits_to_keep=1)
            return output.logits[:, -1].float().cpu()
        except (RuntimeError, MemoryError):
            _forget_after(self._cache, begin)
            raise


def _moved(value: Any, device: torch.device) -> Any:
    """A tensor on a device; clips of different lengths come as a list of them."""
    if isinstance(value, list):
        return [each.to(device) for each in value]
    return value.to(device)


def _forget_after(cache: DynamicCache, length: int) -> None:
    """Cut every layer back to ``length`` tokens."""
    layer: Any
    for layer in cache.layers:
        if layer.get_seq_length() > length:
            layer.keys = layer.keys[..., :length, :]
            layer.values = layer.values[..., :length, :]
