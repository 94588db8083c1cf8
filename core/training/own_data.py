"""Your own rows to train on, from JSONL files, through the ``datasets`` library.

A row to understand holds ``messages`` in the transformers chat format, media parts naming files:

    {"messages": [{"role": "user", "content": [{"type": "image", "path": "cat.jpg"}, {"type": "text", "text": "What is it?"}]},
                  {"role": "assistant", "content": "A cat."}]}

A row to generate holds a ``prompt`` and a ``video`` (or an ``image``):

    {"prompt": "A cat jumps onto a table", "video": "cat.mp4"}

Paths are relative to the JSONL file.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from tqdm import tqdm

from core.errors import DataError, HaploOmniError
from core.media import probe_video, read_image, read_video, sampled_frames
from core.model import masks
from core.processor import HaploOmniProcessor, prompts
from core.training.batches import IGNORE, NoiseBatch, Sentences, TalkBatch, TalkRow, collate_talks, noise_rows
from core.training.trainer import Share

logger = logging.getLogger(__name__)

FRAMES_SEEN = 8  # of a clip in a row to understand, unless its part says otherwise
NAMED = 10  # bad rows are named up to this many, then only counted


@dataclass
class OwnRows:
    """Checked rows: ``talks`` about pictures alone, ``clip_talks`` about clips, ``stills`` and ``videos`` to generate."""

    talks: list[dict[str, Any]] = field(default_factory=list)
    clip_talks: list[dict[str, Any]] = field(default_factory=list)
    stills: list[dict[str, Any]] = field(default_factory=list)
    videos: list[dict[str, Any]] = field(default_factory=list)
    bad: int = 0


def read_rows(files: Sequence[Path], processor: HaploOmniProcessor, longest: int, strict: bool = False) -> OwnRows:
    """Read and check JSONL files.

    Args:
        processor: counts tokens.
        longest: tokens a row may have.
        strict: raise at the first bad row instead of naming and skipping it.

    Raises:
        DataError: a file is missing, no good row is left, or with ``strict`` any row is bad.
    """
    rows = OwnRows()
    for file in files:
        if not file.is_file():
            raise DataError(f"There is no data file {file}.")
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            try:
                _sort_in(rows, check_row(line, file.parent, processor, longest))
            except HaploOmniError as error:
                fault = f"{file}, line {number}: {error}"
                if strict:
                    raise DataError(fault) from error
                rows.bad += 1
                if rows.bad <= NAMED:
                    logger.warning("skipped: %s", fault)
    good = len(rows.talks) + len(rows.clip_talks) + len(rows.stills) + len(rows.videos)
    if rows.bad:
        logger.warning("%d bad rows skipped, %d good rows kept", rows.bad, good)
    if not good:
        raise DataError(f"No usable row in {', '.join(map(str, files))}.")
    return rows


def _lines(file: Path) -> Sequence[str]:
    """The file's lines; raw, since the library's JSON reader would stop at the first bad one."""
    if not file.stat().st_size:
        return []
    try:
        return datasets.Dataset.from_text(str(file), keep_in_memory=True)["text"]
    except (UnicodeDecodeError, datasets.exceptions.DatasetGenerationError) as error:
        if not isinstance(error.__cause__ or error, UnicodeDecodeError):
            raise
        raise DataError(f"{file} is not text in UTF-8; save it as UTF-8 JSONL.") from error


def _sort_in(rows: OwnRows, row: dict[str, Any]) -> None:
    if "prompt" in row:
        (rows.videos if "video" in row else rows.stills).append(row)
    else:
        has_clip = any(part["type"] == "video" for message in row["messages"] for part in message["content"])
        (rows.clip_talks if has_clip else rows.talks).append(row)


def check_row(line: str, folder: Path, processor: HaploOmniProcessor, longest: int) -> dict[str, Any]:
    """One line to a row with absolute paths.

    Raises:
        HaploOmniError: with what is wrong, in one sentence.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"this is not JSON ({error}).") from error
    if not isinstance(row, dict) or not ("messages" in row or "prompt" in row):
        raise DataError("a row needs 'messages' (to understand) or 'prompt' with 'video' or 'image' (to generate).")
    if "prompt" in row:
        return _check_generation(row, folder)
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise DataError("'messages' must be a list of messages.")
    made, images, clips = [], [], []
    for message in messages:
        parts = [dict(part) for part in prompts.content_parts(message)]
        for part in parts:
            if part["type"] == "text":
                continue
            path = _existing(part.get("path"), folder)
            part["path"] = str(path)
            if part["type"] == "image":
                picture = read_image(path)
                images.append((picture.height, picture.width))
            else:
                clips.append(_frames_seen(part, path))
        made.append({"role": message["role"], "content": parts})
    if made[-1]["role"] != "assistant":
        raise DataError("the last message must be the assistant's: its words are what is learned.")
    if not any(part["type"] == "text" and part["text"].strip() for part in made[-1]["content"]):
        raise DataError("the assistant's last message has no words to learn.")
    tokens = len(row_ids(processor, made, images, clips))
    if tokens > longest:
        raise DataError(f"the row has {tokens} tokens, more than {longest}.")
    return {"messages": made}


def _frames_seen(part: dict[str, Any], path: Path) -> int:
    """How many frames of a clip are looked at; its part says how many, and from where to where."""
    frames, start, end = part.setdefault("num_frames", FRAMES_SEEN), part.get("start_s", 0.0), part.get("end_s")
    if type(frames) is not int:
        raise DataError(f"'num_frames' is {frames!r}; it must be a whole number.")
    for name, value in (("start_s", start), ("end_s", 0.0 if end is None else end)):
        if type(value) not in (int, float):
            raise DataError(f"'{name}' is {value!r}; it must be a number of seconds.")
    return len(sampled_frames(probe_video(path), path.name, frames, start, end))


def _check_generation(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    if not isinstance(row["prompt"], str) or not row["prompt"].strip():
        raise DataError("'prompt' must be a text.")
    kind = "video" if "video" in row else "image"
    if kind not in row:
        raise DataError("a row with a 'prompt' needs a 'video' or an 'image'.")
    path = _existing(row[kind], folder)
    probe_video(path) if kind == "video" else read_image(path)
    return {"prompt": row["prompt"], kind: str(path)}


def _existing(given: object, folder: Path) -> Path:
    if not isinstance(given, str) or not given:
        raise DataError("every image and video part needs a 'path'.")
    path = folder / given
    if not path.is_file():
        raise DataError(f"there is no file {given}.")
    return path


def row_ids(
    processor: HaploOmniProcessor, messages: Sequence[dict[str, Any]], images: Sequence[tuple[int, int]], clips: Sequence[int]
) -> list[int]:
    """Token ids of a conversation with images of (height, width) and clips of so many frames."""
    expand = {
        processor.image_token_id: [processor.image_tokens(*size) for size in images],
        processor.video_token_id: [processor.video_tokens(frames) for frames in clips],
    }
    pieces = prompts.render(processor.tokenizer, processor.chat_template, messages, False)
    return prompts.encode(processor.tokenizer, pieces, expand)


def answer_labels(ids: Sequence[int], opening: Sequence[int], end: int) -> list[int]:
    """Labels of a conversation: what stands between the opening of an assistant's turn and its end, the end included."""
    labels, place = [IGNORE] * len(ids), 0
    while place < len(ids):
        if list(ids[place : place + len(opening)]) != list(opening):
            place += 1
            continue
        place += len(opening)
        while place < len(ids):
            labels[place] = ids[place]
            place += 1
            if ids[place - 1] == end:
                break
    return labels


class OwnTalks:
    """Talks about people's own media.

    Args:
        rows: from :func:`read_rows`.
        processor: of the model.
        grouped: whether the tokens of an image see each other (``config.visual_attention``).
    """

    def __init__(self, rows: Sequence[dict[str, Any]], processor: HaploOmniProcessor, grouped: bool) -> None:
        self.rows, self.processor, self.grouped = rows, processor, grouped
        tokenizer = processor.tokenizer
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        start = tokenizer.convert_tokens_to_ids("<|im_start|>")
        self.opening = [start, *tokenizer("assistant\n", add_special_tokens=False)["input_ids"]]

    def draw(self, key: str, rows: int, share: Share) -> TalkBatch:
        """The share's rows, picked by ``key``."""
        picks = [random.Random(f"{key}/{row}").randrange(len(self.rows)) for row in share.rows(max(rows, share.parts))]
        return collate_talks([self.row(self.rows[pick]["messages"]) for pick in picks], self.processor.tokenizer.pad_token_id)

    def row(self, messages: Sequence[dict[str, Any]]) -> TalkRow:
        """One conversation with its media read."""
        row, images, clips, sizes = TalkRow(), [], [], []
        for part in (part for message in messages for part in message["content"]):
            if part["type"] == "image":
                picture = read_image(part["path"])
                images.append(picture)
                sizes.append((picture.height, picture.width))
                tiles = self.processor.image_processor.preprocess([picture])["pixel_values"][0]
                row.media.append((tiles, sizes[-1]))
            elif part["type"] == "video":
                frames = read_video(part["path"], part["num_frames"], part.get("start_s", 0.0), part.get("end_s"))
                clips.append(len(frames))
                row.media.append((self.processor.video_processor.preprocess([frames])["pixel_values_videos"][0], None))
        row.ids = row_ids(self.processor, messages, sizes, clips)
        row.labels = answer_labels(row.ids, self.opening, self.end)
        row.position_ids, row.segments = list(range(len(row.ids))), [0] * len(row.ids)
        row.starts = list(range(len(row.ids)))
        if self.grouped:
            counts = [self.processor.image_tokens(*size) for size in sizes]
            frames = [[self.processor.num_image_tokens] * count + [1] for count in clips]
            tokens = self.processor.image_token_id, self.processor.video_token_id
            row.starts = masks.start_ids(torch.tensor([row.ids]), *tokens, counts, frames)[0].tolist()
        return row


def fit_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [T, h, w, 3] scaled to cover ``height`` x ``width`` and cut to it around the middle."""
    scale = max(height / frames.shape[1], width / frames.shape[2])
    across, down = max(width, round(frames.shape[2] * scale)), max(height, round(frames.shape[1] * scale))
    left, top = (across - width) // 2, (down - height) // 2
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = [cv2.resize(frame, (across, down), interpolation=shrinks) for frame in frames]
    return np.stack([frame[top : top + height, left : left + width] for frame in resized])


class OwnClips:
    """People's own clips (or pictures) to denoise, encoded once.

    Args:
        rows: from :func:`read_rows`.
        sentences: of the tokenizer that reads the prompts.
        vae: encodes what ``folder`` still lacks.
        folder: of the encoded clips.
        frames, height, width: every clip is sampled, scaled and cut to this.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        sentences: Sentences,
        vae: AutoencoderKLCogVideoX,
        folder: Path,
        frames: int,
        height: int,
        width: int,
    ) -> None:
        self.rows, self.sentences = rows, sentences
        self.files = [folder / f"{frames}x{height}x{width}-{number}.pt" for number in range(len(rows))]
        folder.mkdir(parents=True, exist_ok=True)
        state = PartialState()  # every process encodes its share
        todo = list(zip(rows, self.files, strict=True))[state.process_index :: state.num_processes]
        for row, file in tqdm(todo, desc="encoding your clips", disable=not state.is_main_process):
            if not file.exists():
                part = file.with_suffix(f".part{os.getpid()}")
                torch.save(self._encode(row, vae, frames, height, width), part)
                os.replace(part, file)
        state.wait_for_everyone()

    @staticmethod
    @torch.no_grad()
    def _encode(row: dict[str, Any], vae: AutoencoderKLCogVideoX, frames: int, height: int, width: int) -> Tensor:
        if "image" in row:
            pixels = np.asarray(read_image(row["image"]))[None]
        else:
            pixels = read_video(row["video"], frames)
            pixels = pixels[np.round(np.linspace(0, len(pixels) - 1, frames)).astype(int)]
        video = torch.from_numpy(fit_frames(pixels, height, width)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0
        latents = vae.encode(video.to(vae.device, vae.dtype)).latent_dist.mode()[0] * vae.config.scaling_factor
        return latents.permute(1, 0, 2, 3).to(torch.bfloat16).cpu()

    def draw(self, key: str, rows: int, share: Share) -> NoiseBatch:
        """The share's rows, picked by ``key``."""
        numbers = share.rows(max(rows, share.parts))
        rngs = [random.Random(f"{key}/{number}") for number in numbers]
        picks = [rng.randrange(len(self.rows)) for rng in rngs]
        texts = ["" if rng.random() < 0.1 else self.rows[pick]["prompt"] for rng, pick in zip(rngs, picks, strict=True)]
        bands = [(number + rng.random()) / max(rows, share.parts) for number, rng in zip(numbers, rngs, strict=True)]
        latents = torch.stack([torch.load(self.files[pick], weights_only=True) for pick in picks])
        return noise_rows(self.sentences, rngs, latents, texts, bands)
