"""Your own rows to train on, from JSONL files: read, checked one by one, and sorted by what they teach.

A row to understand holds ``messages`` in the transformers chat format, media parts naming files:

    {"messages": [{"role": "user", "content": [{"type": "image", "path": "cat.jpg"},
                                               {"type": "text", "text": "What is it?"}]},
                  {"role": "assistant", "content": "A cat."}]}

A row to generate holds a ``prompt`` and a ``video`` (or an ``image``):

    {"prompt": "A cat jumps onto a table", "video": "cat.mp4"}

Paths are relative to the JSONL file.
A row that says anything else is refused by name: what is not understood would otherwise be left out without
a word, or learned as letters.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from core.errors import DataError, HaploOmniError
from core.media import probe_video, read_image, sampled_frames
from core.processor import HaploOmniProcessor, prompts
from core.training.data.jsonl import lines_of, parse
from core.training.data.other_formats import PLACEHOLDER, advice_for
from core.training.data.tokenization import CachedTokenizer

logger = logging.getLogger(__name__)

FRAMES_SEEN = 8  # of a clip in a row to understand, unless its part says otherwise
NAMED = 10  # bad rows are named up to this many, then only counted
PART_KEYS = {
    "text": ("type", "text"),
    "image": ("type", "path"),
    "video": ("type", "path", "num_frames", "start_s", "end_s"),
}


@dataclass
class DatasetRows:
    """Checked rows, by what they teach.

    Args:
        conversations: about pictures alone, or about nothing.
        clip_conversations: with a clip in them.
        stills, videos: pictures and clips to generate.
        bad: how many rows were skipped.
    """

    conversations: list[dict[str, Any]] = field(default_factory=list)
    clip_conversations: list[dict[str, Any]] = field(default_factory=list)
    stills: list[dict[str, Any]] = field(default_factory=list)
    videos: list[dict[str, Any]] = field(default_factory=list)
    bad: int = 0

    @property
    def good(self) -> int:
        """How many there are."""
        return len(self.conversations) + len(self.clip_conversations) + len(self.stills) + len(self.videos)


def read_rows(
    files: Sequence[Path], processor: HaploOmniProcessor, longest: int, strict: bool = False
) -> DatasetRows:
    """Read and check JSONL files.

    Args:
        processor: counts tokens.
        longest: tokens a row may have.
        strict: raise at the first bad row instead of naming and skipping it.

    Raises:
        DataError: a file cannot be read, no good row is left, or with ``strict`` any row is bad.
    """
    rows = DatasetRows()
    for file in files:
        for number, line in enumerate(lines_of(file), start=1):
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
    if rows.bad:
        logger.warning("%d bad rows skipped, %d good rows kept", rows.bad, rows.good)
    if not rows.good:
        document = next((file for file in files if _is_document(file)), None)
        advice = (
            f"; {document} is one JSON document over many lines: write every row whole on a line of its own"
            if document
            else ""
        )
        raise DataError(f"No usable row in {', '.join(map(str, files))}{advice}.")
    return rows


def _is_document(file: Path) -> bool:
    """Whether a file begins as others save all their rows: as one list or one object over many lines."""
    first = next((line.strip() for line in lines_of(file) if line.strip()), b"")
    return first in (b"[", b"{", b"[{") or (first.startswith(b"[") and first.endswith(b","))


def _sort_in(rows: DatasetRows, row: dict[str, Any]) -> None:
    """Put a checked row where it belongs."""
    if "prompt" in row:
        (rows.videos if "video" in row else rows.stills).append(row)
    else:
        has_clip = any(part["type"] == "video" for message in row["messages"] for part in message["content"])
        (rows.clip_conversations if has_clip else rows.conversations).append(row)


def check_row(line: bytes, folder: Path, processor: HaploOmniProcessor, longest: int) -> dict[str, Any]:
    """One line to a row with absolute paths.

    Raises:
        HaploOmniError: with what is wrong, in one sentence.
    """
    row = parse(line)
    if not isinstance(row, dict):
        raise DataError(f"this is {shortened(row)}; a row is one JSON object in braces.")
    kinds = [key for key in ("messages", "prompt") if row.get(key) is not None]
    if len(kinds) == 2:
        raise DataError("the row has both 'messages' and 'prompt'; make two rows of it.")
    if kinds == ["prompt"]:
        return _check_generation(row, folder, processor, longest)
    # exporters write every column into every row: a column of the other kind may stand here as null
    empty = [key for key in ("prompt", "video", "image") if key in row and row[key] is None]
    _refuse_unknown(row, ("messages", *empty), "the row")
    if not kinds:
        needed = "'messages' (to understand) or 'prompt' with 'video' or 'image' (to generate)"
        raise DataError(f"a row needs {needed}.")
    return _check_conversation(row["messages"], folder, processor, longest)


def _refuse_unknown(given: dict[str, Any], known: Sequence[str], where: str) -> None:
    """Raise DataError at a key that nothing reads; the one that there is most to say about is named."""
    unknown = [key for key in given if key not in known]
    if not unknown:
        return
    key = next((key for key in unknown if advice_for(where, key)), unknown[0])
    instead = advice_for(where, key) or f"it may have {', '.join(repr(name) for name in known)}"
    raise DataError(f"{where} has the unknown key {shortened(key)}; {instead}.")


def _check_conversation(
    messages: object, folder: Path, processor: HaploOmniProcessor, longest: int
) -> dict[str, Any]:
    """A row to understand, with its media looked at and its tokens counted."""
    if not isinstance(messages, list) or not messages:
        raise DataError("'messages' must be a list of messages.")
    made: list[dict[str, Any]] = []
    images: list[tuple[int, int]] = []  # their (height, width)
    clips: list[int] = []  # their frames
    for message in messages:
        parts = _message_parts(message, processor)
        for part in parts:
            if part["type"] == "text":
                continue
            if message["role"] == "assistant":
                raise DataError(
                    "an assistant's message can only hold words; show the file in a user's message."
                )
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
    if len(made) < 2 or made[-2]["role"] != "user":
        raise DataError("before the assistant's last message must stand the user's that it answers.")
    if not any(part["text"].strip() for part in made[-1]["content"]):
        raise DataError("the assistant's last message has no words to learn.")
    _count_tokens(len(row_ids(processor, made, images, clips)), longest)
    return {"messages": made}


def _message_parts(message: Any, processor: HaploOmniProcessor) -> list[dict[str, Any]]:
    """A message's parts, with nothing in them that is not read."""
    if isinstance(message, dict):
        _refuse_unknown(message, ("role", "content"), "a message")
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            told = advice_for("a part", kind) if isinstance(kind, str) and kind not in PART_KEYS else ""
            if told:
                raise DataError(f"a part has the type {shortened(kind)}; {told}.")
    parts = [
        {key: value for key, value in part.items() if value is not None}
        for part in prompts.content_parts(message)
    ]
    for part in parts:
        _refuse_unknown(part, PART_KEYS[part["type"]], f"a part of type '{part['type']}'")
        if part["type"] == "text":
            _check_words(part["text"], processor)
    return parts


def _check_words(text: str, processor: HaploOmniProcessor) -> None:
    """Raise DataError at what means something in the formats of others, and would be learned as letters."""
    left = PLACEHOLDER.search(text)
    if left:
        kind = "video" if "vid" in left[0].lower() else "image"
        part = f'{{"type": "{kind}", "path": ...}}'
        instead = f"put {part} among the parts of that message's content, and take the letters out"
        if "audio" in left[0].lower():
            instead = "sound is not learned here; take them out"
        raise DataError(f"the words hold the letters {left[0]}; {instead}.")
    control = next((token for token in processor.tokenizer.all_special_tokens if token in text), None)
    if control:
        instead = "leave them out: they are written around the messages here"
        raise DataError(f"the words hold the letters {control}; {instead}.")


def _frames_seen(part: dict[str, Any], path: Path) -> int:
    """How many frames of a clip are looked at; its part says how many, and from where to where."""
    frames = part.setdefault("num_frames", FRAMES_SEEN)
    start = part.get("start_s", 0.0)
    end = part.get("end_s")
    if type(frames) is not int:
        raise DataError(f"'num_frames' is {shortened(frames)}; it must be a whole number.")
    if abs(frames) > 10**6:
        raise DataError(f"'num_frames' is {shortened(frames)}; no clip has so many.")
    for name, value in (("start_s", start), ("end_s", 0.0 if end is None else end)):
        if type(value) not in (int, float):
            raise DataError(f"'{name}' is {shortened(value)}; it must be a number of seconds.")
        if not 0 <= value <= 1e9:
            needed = "a number of seconds from the clip's beginning"
            raise DataError(f"'{name}' is {shortened(value)}; it must be {needed}.")
    return len(sampled_frames(probe_video(path), path.name, frames, start, end))


def _check_generation(
    row: dict[str, Any], folder: Path, processor: HaploOmniProcessor, longest: int
) -> dict[str, Any]:
    """A row to generate, with its picture or clip looked at and its prompt's tokens counted."""
    empty = ("messages",) if row.get("messages", 0) is None else ()
    _refuse_unknown(row, ("prompt", "video", "image", *empty), "the row")
    prompt = row["prompt"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError("'prompt' must be a text.")
    _check_words(prompt, processor)
    kinds = [kind for kind in ("video", "image") if row.get(kind) is not None]
    if len(kinds) != 1:
        needed = "only one of 'video' and 'image'" if kinds else "a 'video' or an 'image'"
        raise DataError(f"a row with a 'prompt' needs {needed}.")
    kind = kinds[0]
    path = _existing(row[kind], folder, f"'{kind}' must be the path of a file.")
    if kind == "video":
        probe_video(path)
    else:
        read_image(path)
    _count_tokens(len(CachedTokenizer(processor.tokenizer).encode_prompt(prompt)), longest)
    return {"prompt": prompt, kind: str(path)}


def _count_tokens(tokens: int, longest: int) -> None:
    if tokens > longest:
        raise DataError(f"the row has {tokens} tokens, more than {longest}.")


def _existing(
    given: object, folder: Path, otherwise: str = "every image and video part needs a 'path'."
) -> Path:
    """The file that a row names; ``otherwise``: what to say where it names none."""
    if not isinstance(given, str) or not given:
        raise DataError(otherwise)
    if re.match(r"data:|[a-zA-Z][a-zA-Z0-9+.-]+://", given):
        instead = "rows name files: save it beside the rows and write its path"
        raise DataError(f"{shortened(given)} is an address; {instead}.")
    path = folder / given
    if not os.path.isfile(path):  # False too for names that no system can have
        raise DataError(f"there is no file {shortened(given) if len(given) > 100 else given}.")
    return path


def row_ids(
    processor: HaploOmniProcessor,
    messages: Sequence[dict[str, Any]],
    images: Sequence[tuple[int, int]],
    clips: Sequence[int],
) -> list[int]:
    """Token ids of a conversation with images of (height, width) and clips of so many frames."""
    expand = {
        processor.image_token_id: [processor.image_tokens(*size) for size in images],
        processor.video_token_id: [processor.video_tokens(frames) for frames in clips],
    }
    pieces = prompts.render(processor.tokenizer, processor.chat_template, messages, False)
    return prompts.encode(processor.tokenizer, pieces, expand)
