"""People's own rows as batches: conversations about their media, and clips to denoise, encoded once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from tqdm import tqdm

from core.media import read_image, read_video
from core.model import masks
from core.opencv import cv2
from core.processor import HaploOmniProcessor
from core.training.data.latents import autoencoder_digest
from core.training.data.noise import UNPROMPTED, NoiseBatch, noise_rows
from core.training.data.packing import PackedBatch, PackedRow, collate
from core.training.data.rows import row_ids
from core.training.data.tokenization import IGNORE, CachedTokenizer
from core.training.loop.processes import BatchShard
from core.training.loop.provenance import digest, file_digest, load_latents, save_whole

LAYOUT = 1  # of the encoded clips: another number when they are sampled, fitted or encoded in another way


def answer_labels(ids: Sequence[int], opening: Sequence[int], end: int) -> list[int]:
    """Labels of a conversation: what the assistant says, up to and with the end of its turn.

    Args:
        ids: of the whole conversation.
        opening: ids that open an assistant's turn.
        end: the id that ends a turn.
    """
    labels = [IGNORE] * len(ids)
    place = 0
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


def _with_digests(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A conversation with its files' contents named in the place of their paths."""
    return [
        {**part, "path": file_digest(Path(part["path"]))} if "path" in part else part
        for message in messages
        for part in ({"role": message["role"]}, *message["content"])
    ]


class ConversationDataset:
    """Conversations about people's own media.

    Args:
        rows: from :func:`core.training.data.rows.read_rows`.
        processor: of the model.
        grouped: whether the tokens of an image see each other (``config.visual_attention``).
    """

    def __init__(self, rows: Sequence[dict[str, Any]], processor: HaploOmniProcessor, grouped: bool) -> None:
        self.rows = rows
        self.processor = processor
        self.grouped = grouped
        self.key = digest([_with_digests(row["messages"]) for row in rows])
        tokenizer = processor.tokenizer
        self.pad = CachedTokenizer(tokenizer).pad
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        start = tokenizer.convert_tokens_to_ids("<|im_start|>")
        self.opening = [start, *tokenizer("assistant\n", add_special_tokens=False)["input_ids"]]

    def sample_batch(self, key: str, rows: int, share: BatchShard) -> PackedBatch:
        """The share's part of ``rows`` rows, one of them at least, picked by ``key``."""
        numbers = share.rows(max(rows, share.parts))
        picks = [random.Random(f"{key}/{number}").randrange(len(self.rows)) for number in numbers]
        return collate([self.row(self.rows[pick]["messages"]) for pick in picks], self.pad)

    def row(self, messages: Sequence[dict[str, Any]]) -> PackedRow:
        """One conversation with its media read."""
        row = PackedRow()
        sizes: list[tuple[int, int]] = []  # of the images
        clips: list[int] = []  # their frames
        for part in (part for message in messages for part in message["content"]):
            if part["type"] == "image":
                picture = read_image(part["path"])
                size = picture.height, picture.width
                sizes.append(size)
                tiles = self.processor.image_processor.preprocess([picture])["pixel_values"][0]
                row.media.append((tiles, size))
            elif part["type"] == "video":
                span = part.get("start_s", 0.0), part.get("end_s")
                frames = read_video(part["path"], part["num_frames"], *span)
                clips.append(len(frames))
                tiles = self.processor.video_processor.preprocess([frames])["pixel_values_videos"][0]
                row.media.append((tiles, None))
        row.ids = row_ids(self.processor, messages, sizes, clips)
        row.labels = answer_labels(row.ids, self.opening, self.end)
        row.position_ids = list(range(len(row.ids)))
        row.segments = [0] * len(row.ids)
        row.starts = list(range(len(row.ids)))
        if self.grouped:
            # of a clip every frame is a group, and the token behind the last one
            counts = [self.processor.image_tokens(*size) for size in sizes]
            groups = [[self.processor.num_image_tokens] * count + [1] for count in clips]
            tokens = self.processor.image_token_id, self.processor.video_token_id
            row.starts = masks.start_ids(torch.tensor([row.ids]), *tokens, counts, groups)[0].tolist()
        return row


def fit_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [T, h, w, 3] scaled to cover ``height`` x ``width`` and cut to it around the middle."""
    scale = max(height / frames.shape[1], width / frames.shape[2])
    across = max(width, round(frames.shape[2] * scale))
    down = max(height, round(frames.shape[1] * scale))
    left = (across - width) // 2
    top = (down - height) // 2
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = [cv2.resize(frame, (across, down), interpolation=interpolation) for frame in frames]
    return np.stack([frame[top : top + height, left : left + width] for frame in resized])


def _medium(row: dict[str, Any]) -> str:
    """Path of the picture or the clip that a row generates."""
    return row["image"] if "image" in row else row["video"]


@torch.no_grad()
def encode_row(
    row: dict[str, Any], vae: AutoencoderKLCogVideoX, frames: int, height: int, width: int
) -> Tensor:
    """Latents bfloat16 [F, 16, h, w] of a row's picture or clip."""
    if "image" in row:
        pixels = np.asarray(read_image(row["image"]))[None]
    else:
        # a clip that is shorter shows some frames more than once
        pixels = read_video(row["video"], frames)
        pixels = pixels[np.round(np.linspace(0, len(pixels) - 1, frames)).astype(int)]
    fitted = torch.from_numpy(fit_frames(pixels, height, width)).permute(3, 0, 1, 2)  # (3, T, H, W)
    video = (fitted[None].float() / 127.5 - 1.0).to(vae.device, vae.dtype)
    latents = vae.encode(video).latent_dist.mode()[0] * vae.config.scaling_factor  # (16, F, h, w)
    return latents.permute(1, 0, 2, 3).to(torch.bfloat16).cpu()


class LatentVideoDataset:
    """People's own clips (or pictures) to denoise, encoded once.

    An encoded clip goes by a digest of what it was made of: file, autoencoder's weights, size.
    A row that is mended, removed or moved finds its own clip.
    A file or an autoencoder that is changed finds none, and the clip is encoded.

    Args:
        rows: from :func:`core.training.data.rows.read_rows`.
        tokenizer: reads the prompts.
        vae: encodes what ``folder`` still lacks.
        folder: of the encoded clips.
        frames, height, width: every clip is sampled, scaled and cut to this.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        tokenizer: CachedTokenizer,
        vae: AutoencoderKLCogVideoX,
        folder: Path,
        frames: int,
        height: int,
        width: int,
    ) -> None:
        self.rows = rows
        self.tokenizer = tokenizer
        made_by = digest(LAYOUT, autoencoder_digest(vae), frames, height, width)
        media = {path: file_digest(Path(path)) for path in map(_medium, rows)}
        names = [f"{frames}x{height}x{width}-{digest(made_by, media[_medium(row)])}.pt" for row in rows]
        self.files = [folder / name for name in names]
        self.key = digest([(row["prompt"], name) for row, name in zip(rows, names, strict=True)])
        folder.mkdir(parents=True, exist_ok=True)
        state = PartialState()
        # rows that show the same file have one clip; every process encodes its share
        clips = list(dict(zip(self.files, rows, strict=True)).items())
        todo = clips[state.process_index :: state.num_processes]
        for file, row in tqdm(todo, desc="encoding your clips", disable=not state.is_main_process):
            if not file.exists():
                save_whole(encode_row(row, vae, frames, height, width), file)
        state.wait_for_everyone()

    def sample_batch(self, key: str, rows: int, share: BatchShard) -> NoiseBatch:
        """The share's part of ``rows`` rows, one of them at least, picked by ``key``."""
        rows = max(rows, share.parts)
        rngs = [random.Random(f"{key}/{number}") for number in share.rows(rows)]
        picks: list[int] = []
        texts: list[str] = []
        fractions: list[float] = []
        for number, rng in zip(share.rows(rows), rngs, strict=True):
            pick = rng.randrange(len(self.rows))
            picks.append(pick)
            texts.append("" if rng.random() < UNPROMPTED else self.rows[pick]["prompt"])
            # every row has a timestep of its own part of the schedule
            fractions.append((number + rng.random()) / rows)
        latents = torch.stack([load_latents(self.files[pick]) for pick in picks])
        return noise_rows(self.tokenizer, rngs, latents, texts, fractions)
