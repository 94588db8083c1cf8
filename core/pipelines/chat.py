"""Chat as a stream of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    BatchFeature,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.errors import MediaError, NumericalError, PromptError
from core.media import read_image, read_video
from core.pipelines.detokenizer import IncrementalDetokenizer
from core.pipelines.prefill import PrefillStep, TalkCache
from core.pipelines.runtime import Runtime
from core.processor.prompts import Message, content_parts
from core.requests import Sampling

MAX_MEDIA = 16
IMAGE_SOURCES = (str, Path, Image.Image, np.ndarray)
VIDEO_SOURCES = (str, Path, np.ndarray)


def chat(runtime: Runtime, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
    """Answer a conversation; yields pieces of text as they are decoded. Close the iterator to stop.

    Raises:
        PromptError: nothing asked, a malformed message, or a conversation beyond the context.
        MediaError: an image or clip that cannot be read.
    """
    for step in chat_steps(runtime, messages, sampling):
        if isinstance(step, str) and step:
            yield step


def chat_steps(
    runtime: Runtime, messages: Sequence[Message], sampling: Sampling
) -> Iterator[PrefillStep | str]:
    """:func:`chat` with every step: of reading a long conversation, and one for each token.

    Where a token does not complete a character, its piece of text is empty.
    """
    sampling.validate()
    inputs = prepare(runtime, messages)
    length = inputs["input_ids"].shape[1]
    limit = runtime.model.config.max_position_embeddings
    if length >= limit:
        raise PromptError(
            f"The conversation takes {length} tokens but the model's context holds {limit}; "
            "clear the chat, send fewer pictures or video frames, or write less."
        )
    text = IncrementalDetokenizer(runtime.processor.tokenizer)
    for step in decode_steps(runtime, inputs, sampling, min(sampling.max_new_tokens, limit - length)):
        yield step if isinstance(step, PrefillStep) else text.push(step)
    tail = text.finish()
    if tail:
        yield tail


def prepare(runtime: Runtime, messages: Sequence[Message]) -> BatchFeature:
    """Read all media of a conversation and build the model's inputs.

    Returns:
        The processor's ``input_ids``, ``attention_mask``, ``attention_start_ids`` [1, S], and the pixels.

    Raises:
        PromptError: see :func:`chat`.
        MediaError: see :func:`chat`; a file that an earlier message needs is named with that message.
    """
    turns = [content_parts(message) for message in messages]
    if not turns or messages[-1]["role"] != "user":
        raise PromptError("The conversation must end with a message of the user.")
    if not any(part["text"].strip() for part in turns[-1] if part["type"] == "text"):
        raise PromptError("The message has no text; type a question.")
    media = sum(part["type"] != "text" for parts in turns for part in parts)
    if media > MAX_MEDIA:
        raise PromptError(f"The conversation holds {media} pictures and clips; at most {MAX_MEDIA} are read.")
    images: list[Image.Image] = []
    videos: list[np.ndarray] = []
    for number, parts in enumerate(turns):
        try:
            for part in parts:
                if part["type"] == "image":
                    images.append(read_image(_source(part, "image", IMAGE_SOURCES)))
                elif part["type"] == "video":
                    videos.append(_frames(runtime, part))
        except MediaError as error:
            if number == len(turns) - 1:
                raise
            raise _earlier(error, messages, number) from error
    return runtime.processor(messages, images, videos)


def _earlier(error: MediaError, messages: Sequence[Message], number: int) -> MediaError:
    """The error of a file in an earlier message, which a person who now asks something else does not see."""
    asked = sum(message["role"] == "user" for message in messages[: number + 1])
    where = f"the answer to message {asked}"
    if messages[number]["role"] == "user":
        where = f"message {asked} of this conversation"
    fault = str(error).partition(";")[0].rstrip(".")
    return MediaError(
        f"{fault}, though {where} needs it; undo back to that message, or clear the chat, and send it again."
    )


def _source(part: dict, kind: str, types: tuple[type, ...]) -> Any:
    """Where the picture or clip of a part is to be read from."""
    source = part.get("path", part.get(kind))
    if source is None:
        raise PromptError(f"A part of type {kind} needs a 'path' or '{kind}'.")
    if not isinstance(source, types):
        names = ", ".join(known.__name__ for known in types)
        raise PromptError(
            f"A part of type {kind} holds a {type(source).__name__}; it must be one of {names}."
        )
    return source


def _frames(runtime: Runtime, part: dict) -> np.ndarray:
    """The frames of a video part, uint8 RGB [T, H, W, 3]."""
    source = _source(part, "video", VIDEO_SOURCES)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 4 or source.shape[-1] != 3 or not len(source):
            raise MediaError("A clip given as an array must be uint8 [frames, height, width, 3].")
        return source
    try:
        frames = int(part.get("num_frames") or runtime.profile.chat.num_frames)
        start_s = float(part.get("start_s") or 0.0)
        end_s = None if part.get("end_s") is None else float(part["end_s"])
    except (TypeError, ValueError, OverflowError):
        raise PromptError(
            "The 'num_frames', 'start_s' and 'end_s' of a video part must be numbers."
        ) from None
    return read_video(source, frames, start_s, end_s)


def logits_processors(sampling: Sampling) -> LogitsProcessorList:
    """The chain from raw scores [1, V] to the scores [1, V] that are drawn from."""
    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature > 0:
        chain.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            chain.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            chain.append(TopPLogitsWarper(float(sampling.top_p)))
    return chain


def decode_steps(
    runtime: Runtime, inputs: BatchFeature, sampling: Sampling, most: int
) -> Iterator[PrefillStep | int]:
    """Token ids one by one with a key-value cache, up to the end of the turn or ``most`` tokens.

    The steps of reading the conversation come before, where it is read in several.

    Raises:
        NumericalError: the model produced NaN or infinity.
        ShortMemoryError: memory ran out, and nothing could be made smaller.
    """
    chain = logits_processors(sampling)
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    stops = _stop_tokens(runtime)
    talk = TalkCache(runtime, inputs)
    for _ in range(most):
        # the whole conversation before the first token, then the newest token alone
        scores = yield from talk.read()
        if not bool(torch.isfinite(scores).all()):
            raise NumericalError("The model gave scores that are no numbers; try bfloat16 or float32.")
        # choose: a draw from the job's own generator on the CPU, or the likeliest
        scores = chain(talk.ids, scores)  # type: ignore[arg-type]
        if sampling.temperature > 0:
            token = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        else:
            token = scores.argmax(-1, keepdim=True)
        if int(token) in stops:
            return
        yield int(token)
        talk.append(token)


def _stop_tokens(runtime: Runtime) -> set[int]:
    """The tokens that end a turn; a generation config holds one, several or none."""
    stops = runtime.model.generation_config.eos_token_id
    if isinstance(stops, int):
        return {stops}
    return set(stops or ())
