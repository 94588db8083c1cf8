"""Chat as a stream of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    BatchFeature,
    DynamicCache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.errors import MediaError, NumericalError, PromptError, RequestError
from core.media import read_image, read_video
from core.pipelines.thrift import Work, with_relief
from core.processor.prompts import Message, content_parts

if TYPE_CHECKING:
    from core.pipelines.haploomni import HaploOmni

MAX_MEDIA = 16
MAX_PENDING = 5  # a character has at most four bytes


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def validate(self) -> None:
        """Raises RequestError with the first value that cannot be."""
        for label, value, low, high in (
            ("max_new_tokens", self.max_new_tokens, 1, 8192),
            ("temperature", self.temperature, 0.0, 5.0),
            ("top_p", self.top_p, 0.01, 1.0),
            ("top_k", self.top_k, 0, 10_000),
            ("repetition_penalty", self.repetition_penalty, 0.5, 5.0),
        ):
            if not low <= value <= high:
                raise RequestError(f"{label} {value} is not possible; choose {low} to {high}.")

    def processors(self) -> LogitsProcessorList:
        """The chain from raw scores to the scores that are drawn from."""
        chain = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            chain.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature > 0:
            chain.append(TemperatureLogitsWarper(float(self.temperature)))
            if self.top_k:
                chain.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1.0:
                chain.append(TopPLogitsWarper(float(self.top_p)))
        return chain


def chat(omni: HaploOmni, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
    """Answer a conversation; yields pieces of text as they are decoded. Close the iterator to stop.

    Raises:
        PromptError: nothing asked, a malformed message, or a conversation beyond the context.
        MediaError: an image or clip that cannot be read.
    """
    sampling.validate()
    inputs = prepare(omni, messages)
    length, limit = inputs["input_ids"].shape[1], omni.model.config.max_position_embeddings
    if length >= limit:
        raise PromptError(
            f"The conversation takes {length} tokens but the model's context holds {limit}; "
            "clear the chat, send fewer pictures or video frames, or write less."
        )
    text = StreamedText(omni)
    for token in decode_steps(omni, inputs, sampling, min(sampling.max_new_tokens, limit - length)):
        piece = text.push(token)
        if piece:
            yield piece
    tail = text.finish()
    if tail:
        yield tail


def prepare(omni: HaploOmni, messages: Sequence[Message]) -> BatchFeature:
    """Read all media of a conversation and build the model's inputs.

    Raises:
        PromptError, MediaError: see :func:`chat`.
    """
    if not messages or messages[-1].get("role") != "user":
        raise PromptError("The conversation must end with a message of the user.")
    images: list[Image.Image] = []
    videos: list[np.ndarray] = []
    for message in messages:
        parts = content_parts(message)
        texts = [part["text"] for part in parts if part["type"] == "text"]
        if message is messages[-1] and not any(text.strip() for text in texts):
            raise PromptError("The message has no text; type a question.")
        for part in parts:
            if part["type"] == "image":
                images.append(read_image(_source(part, "image")))
            elif part["type"] == "video":
                videos.append(_frames(omni, part))
    if len(images) + len(videos) > MAX_MEDIA:
        raise PromptError(f"The conversation holds {len(images) + len(videos)} pictures and clips; at most {MAX_MEDIA} are read.")
    return omni.processor(messages, images, videos)


def _source(part: dict, kind: str):  # type: ignore[no-untyped-def]
    source = part.get("path", part.get(kind))
    if source is None:
        raise PromptError(f"A part of type {kind} needs a 'path' or '{kind}'.")
    return source


def _frames(omni: HaploOmni, part: dict) -> np.ndarray:
    source = _source(part, "video")
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 4 or source.shape[-1] != 3 or not len(source):
            raise MediaError("A clip given as an array must be uint8 [frames, height, width, 3].")
        return source
    frames = int(part.get("num_frames") or omni.profile["chat"]["num_frames"])
    return read_video(source, frames, float(part.get("start_s") or 0.0), part.get("end_s"))


def decode_steps(omni: HaploOmni, inputs: BatchFeature, sampling: Sampling, most: int) -> Iterator[int]:
    """Token after token with a key-value cache, up to the end of the turn or ``most`` tokens."""
    model, chain = omni.model, sampling.processors()
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    stops = model.generation_config.eos_token_id
    stops = {stops} if isinstance(stops, int) else set(stops or ())
    cache = DynamicCache()
    given: dict[str, Any] = {
        key: [clip.to(omni.device) for clip in value] if isinstance(value, list) else value.to(omni.device)
        for key, value in inputs.items()
    }
    ids: torch.Tensor = given["input_ids"]
    mask: torch.Tensor = given["attention_mask"]
    for _ in range(most):
        scores = with_relief(omni, Work.CHAT, _score, omni, given, cache)
        if not bool(torch.isfinite(scores).all()):
            raise NumericalError("The model gave scores that are no numbers; try bfloat16 or float32.")
        scores = chain(ids.cpu(), scores)  # type: ignore[arg-type]
        if sampling.temperature > 0:
            token = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        else:
            token = scores.argmax(-1, keepdim=True)
        if int(token) in stops:
            return
        yield int(token)
        token = token.to(ids.device)
        ids, mask = torch.cat([ids, token], dim=1), torch.cat([mask, torch.ones_like(token)], dim=1)
        given = {"input_ids": token, "attention_mask": mask}


@torch.no_grad()
def _score(omni: HaploOmni, given: dict[str, Any], cache: DynamicCache) -> torch.Tensor:
    """The next token's scores [1, V] on the CPU; a pass that failed half-way leaves the cache as it was."""
    remembered = cache.get_seq_length()
    try:
        return omni.model(**given, past_key_values=cache, logits_to_keep=1).logits[:, -1].float().cpu()
    except (RuntimeError, MemoryError):
        _forget_after(cache, remembered)
        raise


def _forget_after(cache: DynamicCache, length: int) -> None:
    """Cut every layer back to ``length`` tokens."""
    layer: Any
    for layer in cache.layers:
        if layer.get_seq_length() > length:
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]


class StreamedText:
    """Tokens to text pieces that are never cut inside a character."""

    def __init__(self, omni: HaploOmni) -> None:
        self.tokenizer = omni.processor.tokenizer
        self.special = set(self.tokenizer.all_special_ids)
        self.ids: list[int] = []
        self.shown = ""

    def push(self, token: int) -> str:
        """The new text after ``token``; empty while a character is incomplete."""
        if token in self.special:
            return ""
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids, clean_up_tokenization_spaces=False)
        if text.endswith("\ufffd") and len(text) - len(self.shown) < MAX_PENDING:
            return ""
        return self._advance(text)

    def finish(self) -> str:
        """What was held back."""
        return self._advance(self.tokenizer.decode(self.ids, clean_up_tokenization_spaces=False))

    def _advance(self, text: str) -> str:
        piece, self.shown = text[len(self.shown) :], text
        return piece
