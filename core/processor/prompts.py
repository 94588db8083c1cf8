"""Conversations to token ids, so that people's words never become control tokens.

The chat template is rendered with a mark in the place of every text.
The marks are then replaced piece by piece.
Only what the template itself wrote may turn into special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from core.errors import PromptError
from core.text import whole_text

Message = dict[str, Any]
_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000(\\d+)\ue001")
ROLES = ("system", "user", "assistant")
PARTS = ("text", "image", "video")


CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% elif part['type'] == 'video' %}{{ '<video>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def content_parts(message: Message) -> list[dict[str, Any]]:
    """The parts of a message, a plain string counting as one text part, every text made whole.

    Raises:
        PromptError: the message is not in the transformers chat format.
    """
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise PromptError(f"Every message needs a role, one of {', '.join(ROLES)}.")
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, (list, tuple)):
        raise PromptError("A message's content must be a text or a list of parts.")
    for part in parts:
        if not isinstance(part, dict) or part.get("type") not in PARTS:
            raise PromptError(f"Every part of a message needs a type, one of {', '.join(PARTS)}.")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise PromptError("A text part needs its 'text' as a string.")
    return [{**part, "text": whole_text(part["text"])} if part["type"] == "text" else part for part in parts]


def render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    reply: bool,
    open_end: bool = False,
) -> list[str | int]:
    """Render ``messages``: a list of text pieces (to be encoded as plain text) and special token ids.

    Args:
        template: Jinja source.
        reply: end with the opening of the assistant's turn.
        open_end: leave the last message open, to be gone on with.

    Raises:
        PromptError: there is no message, one is malformed, or the end cannot be both.
    """
    if not messages:
        raise PromptError("The conversation has no message.")
    # every text gives its place to a mark
    texts: list[str] = []
    marked = []
    for message in messages:
        parts = []
        for part in content_parts(message):
            if part["type"] == "text":
                parts.append({"type": "text", "text": _MARK.format(len(texts))})
                texts.append(part["text"])
            else:
                parts.append({"type": part["type"]})
        marked.append({"role": message["role"], "content": parts})
    if open_end and (reply or not any(part["type"] == "text" for part in marked[-1]["content"])):
        raise PromptError(
            "Only a last message with words can be gone on with, and without add_generation_prompt."
        )
    rendered: Any = tokenizer.apply_chat_template(
        marked,
        chat_template=template,
        tokenize=False,
        add_generation_prompt=reply,
        continue_final_message=open_end,
    )
    # what the template wrote is split at its special tokens, then the marks become texts again
    special = tokenizer.get_added_vocab()
    pieces: list[str | int] = []
    for piece in re.split(f"({control_tokens(tokenizer).pattern})", rendered):
        if piece in special:
            pieces.append(special[piece])
        elif piece:
            pieces.append(_MARKS.sub(lambda mark: texts[int(mark.group(1))], piece))
    return pieces


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """What a special token looks like in a text, the longest first where one begins like another."""
    tokens = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens)))


def encode(
    tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str | int], expand: dict[int, list[int]]
) -> list[int]:
    """Token ids of rendered pieces; the n-th occurrence of a token is repeated ``expand[token][n]`` times.

    Raises:
        PromptError: placeholders and media do not match in number.
    """
    left = {token: list(counts) for token, counts in expand.items()}
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, str):
            ids += tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        elif piece in left:
            if not left[piece]:
                raise PromptError("The conversation names more images or videos than were given.")
            ids += [piece] * left[piece].pop(0)
        else:
            ids.append(piece)
    if any(left.values()):
        raise PromptError("More images or videos were given than the conversation names.")
    return ids
