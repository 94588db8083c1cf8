"""Pictures and clips in the forms that users of transformers give them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from core.errors import MediaError, PromptError
from core.media import read_image, read_video
from core.processor.prompts import Message, content_parts

DEFAULT_FRAMES = 8  # looked at of a clip's file
TIMES = ("num_frames", "start_s", "end_s")


def list_images(given: Any) -> list[Image.Image]:
    """One picture, a list, or a list a row -> RGB images in reading order.

    Raises:
        MediaError: it is no picture, or cannot be read.
    """
    if given is None:
        return []
    if isinstance(given, (list, tuple)):
        return [image for item in given for image in list_images(item)]
    if isinstance(given, (np.ndarray, torch.Tensor)):
        pixels = np.asarray(given)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
            raise MediaError("A picture given as an array must be uint8 [height, width, 3].")
        return [Image.fromarray(pixels)]
    if not isinstance(given, (str, Path, Image.Image)):
        raise MediaError(
            f"A picture cannot be a {type(given).__name__}; give a path, a PIL image or an array."
        )
    _refuse_address(given)
    return [read_image(given)]


def list_clips(given: Any) -> list[np.ndarray]:
    """One clip, a list, or a list a row -> clips uint8 [T, H, W, 3] in reading order.

    Raises:
        MediaError: it is no clip, or its frames differ in size.
    """
    if given is None:
        return []
    if isinstance(given, (np.ndarray, torch.Tensor)):
        frames = np.asarray(given)
        if frames.ndim == 5:
            return [clip for one in frames for clip in list_clips(one)]
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise MediaError("A clip given as an array must be uint8 [frames, height, width, 3].")
        return [frames]
    if not isinstance(given, (list, tuple)):
        raise MediaError(
            "A clip is an array uint8 [frames, height, width, 3] or a list of frames; read files first."
        )
    if given and all(_is_frame(item) for item in given):
        pictures = [np.asarray(image) for image in list_images(given)]
        if len({picture.shape for picture in pictures}) > 1:
            raise MediaError("The frames of a clip must all have one size.")
        return [np.stack(pictures)]
    return [clip for item in given for clip in list_clips(item)]


def media_of(
    conversations: Sequence[Sequence[Message]], num_frames: int
) -> tuple[list[Image.Image], list[np.ndarray]]:
    """RGB images and clips uint8 [T, H, W, 3] of conversations, in order; none where no part carries any.

    Args:
        num_frames: looked at of a clip's file whose part does not say it.

    Raises:
        PromptError: some parts carry their media and others do not.
        MediaError: one cannot be read.
    """
    parts = [part for talk in conversations for message in talk for part in content_parts(message)]
    sources = [
        (part, part.get(part["type"], part.get("path", part.get("url"))))
        for part in parts
        if part["type"] != "text"
    ]
    given = [(part, source) for part, source in sources if source is not None]
    for part in (part for part, source in sources if source is None):
        unread = next(
            (key for key, value in part.items() if key not in ("type", *TIMES) and value is not None), None
        )
        if unread is not None:
            raise PromptError(
                f"The {unread!r} of a part of type {part['type']} is not read; "
                f"give its 'path' or '{part['type']}'."
            )
    if given and len(given) < len(sources):
        raise PromptError("Some image or video parts carry their media and others do not; give all or none.")
    images = [image for part, source in given if part["type"] == "image" for image in list_images(source)]
    clips = [
        clip for part, source in given if part["type"] == "video" for clip in _clip(part, source, num_frames)
    ]
    return images, clips


def _clip(part: Message, source: Any, num_frames: int) -> list[np.ndarray]:
    if isinstance(source, (np.ndarray, torch.Tensor, list, tuple)):
        return list_clips(source)
    _refuse_address(source)
    if not isinstance(source, (str, Path)):
        raise MediaError(f"A clip cannot be a {type(source).__name__}; give a path or an array.")
    try:
        wanted = int(part.get("num_frames") or num_frames)
        start = float(part.get("start_s") or 0.0)
        end = None if part.get("end_s") is None else float(part["end_s"])
    except (TypeError, ValueError) as error:
        raise PromptError(
            "The 'num_frames', 'start_s' and 'end_s' of a video part must be numbers."
        ) from error
    return [read_video(source, wanted, start, end)]


def _is_frame(item: Any) -> bool:
    return isinstance(item, Image.Image) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim == 3)


def _refuse_address(source: Any) -> None:
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise MediaError(f"'{source[:80]}' is an address; download the file and give its path.")
