"""A conversation: one typed value, and its forms for Gradio's chatbot, OpenAI, a browser and the model.

Pictures and clips are named by the path of the conversation's own copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

GONE = "(a file that is no longer kept)"


@dataclass(frozen=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """A picture in a file."""

    path: str


@dataclass(frozen=True)
class VideoPart:
    """Frames evenly spread over a part of a clip; seconds from its first frame, None for its end."""

    path: str
    num_frames: int
    start_s: float = 0.0
    end_s: float | None = None


MediaPart = ImagePart | VideoPart
Part = TextPart | MediaPart
KINDS: dict[type, str] = {TextPart: "text", ImagePart: "image", VideoPart: "video"}


@dataclass(frozen=True)
class Message:
    """What one side said; ``role`` is "user", "assistant" or "system"."""

    role: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All words of the message, one line a part."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def paths(self) -> list[str]:
        """The files of the pictures and clips."""
        return [part.path for part in self.parts if not isinstance(part, TextPart)]

    def without_missing(self) -> Message:
        """The same with words in the place of files that are gone."""
        parts = [
            part if isinstance(part, TextPart) or Path(part.path).exists() else TextPart(GONE)
            for part in self.parts
        ]
        return replace(self, parts=tuple(parts))


@dataclass(frozen=True)
class Conversation:
    """Messages in the order in which they were said."""

    messages: tuple[Message, ...] = ()

    @property
    def paths(self) -> list[str]:
        """The files of all pictures and clips."""
        return [path for message in self.messages for path in message.paths]

    @property
    def last_question(self) -> int | None:
        """Where the user spoke last."""
        asked = [number for number, message in enumerate(self.messages) if message.role == "user"]
        return asked[-1] if asked else None

    @property
    def is_answered(self) -> bool:
        """Whether nothing is left to say."""
        return not self.messages or self.messages[-1].role == "assistant"

    def with_message(self, message: Message) -> Conversation:
        """This conversation and then ``message``."""
        return Conversation((*self.messages, message))

    def with_answer(self, text: str) -> Conversation:
        """This conversation and then the model's ``text``."""
        return self.with_message(Message("assistant", (TextPart(text),)))

    def before(self, number: int) -> Conversation:
        """The first ``number`` messages."""
        return Conversation(self.messages[:number])

    def without_last(self) -> Conversation:
        """All messages but the last."""
        return Conversation(self.messages[:-1])

    def without_missing(self) -> Conversation:
        """The same with words in the place of earlier files that are gone; the last message stays."""
        *earlier, last = self.messages
        return Conversation((*(message.without_missing() for message in earlier), last))


def to_chatbot(conversation: Conversation) -> list[dict[str, Any]]:
    """Messages as ``gr.Chatbot`` shows them: a file is ``{"path"}``, words are a text."""

    def shown(message: Message) -> Any:
        if message.role == "assistant":
            return message.text
        return [part.text if isinstance(part, TextPart) else {"path": part.path} for part in message.parts]

    return [{"role": message.role, "content": shown(message)} for message in conversation.messages]


def to_openai(conversation: Conversation, url_of: Callable[[str], str]) -> list[dict[str, Any]]:
    """Messages of OpenAI's chat completions; a clip is a ``video_url``, as servers of open models take it.

    Args:
        url_of: the address under which the file of a path is served.
    """

    def part_of(part: Part) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.text}
        kind = f"{KINDS[type(part)]}_url"
        return {"type": kind, kind: {"url": url_of(part.path)}}

    return [
        {"role": message.role, "content": [part_of(part) for part in message.parts]}
        for message in conversation.messages
    ]


def to_browser(conversation: Conversation) -> list[dict[str, Any]]:
    """Everything of a conversation as plain JSON values: each part is its ``type`` and its fields."""
    return [
        {
            "role": message.role,
            "parts": [{"type": KINDS[type(part)], **asdict(part)} for part in message.parts],
        }
        for message in conversation.messages
    ]


def from_browser(messages: list[dict[str, Any]]) -> Conversation:
    """The conversation of :func:`to_browser`.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    kinds = {name: kind for kind, name in KINDS.items()}

    def part_of(value: dict[str, Any]) -> Part:
        fields = {name: given for name, given in value.items() if name != "type"}
        part: Part = kinds[value["type"]](**fields)
        return part

    return Conversation(
        tuple(
            Message(str(message["role"]), tuple(part_of(part) for part in message["parts"]))
            for message in messages
        )
    )


def to_model(
    conversation: Conversation, decoded: Callable[[MediaPart], np.ndarray | None]
) -> list[dict[str, Any]]:
    """Messages in the transformers chat format, media decoded.

    Args:
        decoded: what was read of a part, uint8 [H, W, 3] or [T, H, W, 3]; None leaves the file to the model.
    """

    def part_of(part: Part) -> dict[str, Any]:
        kind = KINDS[type(part)]
        pixels = None if isinstance(part, TextPart) else decoded(part)
        return {"type": kind, **(asdict(part) if pixels is None else {kind: pixels})}

    return [
        {"role": message.role, "content": [part_of(part) for part in message.parts]}
        for message in conversation.messages
    ]
