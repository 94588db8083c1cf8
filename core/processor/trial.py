"""A processor tried out on a word, a picture and a clip, so that a foreign settings file is told at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from core.config import HaploOmniConfig
from core.errors import CheckpointError
from core.processor import prompts


def try_out(processor: Any, config: HaploOmniConfig, place: str) -> None:
    """Use every part once, on the least that it takes.

    Args:
        processor: a HaploOmniProcessor as it was read.
        config: of the model that is to read what the processor makes.
        place: the folder or hub id, for the error.

    Raises:
        CheckpointError: a part fails, or makes what the model cannot take; names its file.
    """
    trials: dict[str, Callable[[], str | None]] = {
        "tokenizer_config.json or tokenizer.json": lambda: _tokenizer_fault(processor, config),
        "processor_config.json": lambda: _placeholder_fault(processor, config),
        "chat_template.json": lambda: _template_fault(processor),
        "preprocessor_config.json": lambda: _picture_fault(processor, config),
        "video_processor/preprocessor_config.json": lambda: _clip_fault(processor, config),
    }
    for name, trial in trials.items():
        try:
            fault = trial()
        except Exception as error:
            lines = str(error).strip().splitlines() or ["no more is known"]
            fault = f"using it fails with {type(error).__name__}: {lines[-1][:200]}"
        if fault:
            raise CheckpointError(f"{name} in {place} does not fit this model: {fault}")


def _tokenizer_fault(processor: Any, config: HaploOmniConfig) -> str | None:
    _ = processor.tokenizer.all_special_ids  # asked for by every answer; an empty unk_token has none
    if not prompts.encode(processor.tokenizer, ["words"], {}):
        return "it makes no tokens of words."
    highest = max(processor.tokenizer.get_vocab().values(), default=-1)
    if not 0 <= highest < config.vocab_size:
        return f"its highest token is {highest}, and config.json has a vocab_size of {config.vocab_size}."
    return None


def _placeholder_fault(processor: Any, config: HaploOmniConfig) -> str | None:
    patches = config.patches_per_side**2
    if processor.num_image_tokens != patches:
        return f"num_image_tokens is {processor.num_image_tokens!r}, and a tile makes {patches}."
    wanted = (
        (processor.image_token, config.image_token_index),
        (processor.video_token, config.video_token_index),
    )
    added = processor.tokenizer.get_added_vocab()
    for token, index in wanted:
        found = added.get(token)
        if found != index:
            return f"the placeholder {token!r} is token {found} of the tokenizer, and {index} in config.json."
    return None


def _template_fault(processor: Any) -> str | None:
    if not isinstance(processor.chat_template, str):
        return "chat_template must be a text."
    parts = [{"type": kind} for kind in ("image", "video")]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "words"}]}]
    pieces = prompts.render(processor.tokenizer, processor.chat_template, messages, reply=True)
    placeholders = {processor.image_token_id, processor.video_token_id}
    has_words = any(isinstance(piece, str) and "words" in piece for piece in pieces)
    if not has_words or not placeholders <= set(pieces):
        return "it leaves out the words, the picture or the clip of a message."
    return None


def _picture_fault(processor: Any, config: HaploOmniConfig) -> str | None:
    side = config.default_image_size
    pinpoints = [list(pinpoint) for pinpoint in processor.image_processor.image_grid_pinpoints]
    if pinpoints != [list(pinpoint) for pinpoint in config.image_grid_pinpoints or ()]:
        return "its image_grid_pinpoints are not those of config.json."
    made = processor.image_processor.preprocess([Image.new("RGB", (side, side // 2 or 1))])
    return _pixel_fault(made["pixel_values"][0], side)


def _clip_fault(processor: Any, config: HaploOmniConfig) -> str | None:
    made = processor.video_processor.preprocess([np.zeros((1, 8, 8, 3), np.uint8)])
    return _pixel_fault(made["pixel_values_videos"][0], config.default_image_size)


def _pixel_fault(pixels: Any, side: int) -> str | None:
    """Of tiles or frames, which must be [T, 3, side, side] and finite."""
    if tuple(pixels.shape[1:]) != (3, side, side):
        return f"it makes tiles of {list(pixels.shape[1:])}, and config.json needs [3, {side}, {side}]."
    if not bool(torch.isfinite(pixels).all()):
        return "it makes pixels that are no numbers."
    return None
