"""What other trainers write into their rows, and what to write here instead."""

from __future__ import annotations

import re

# <image>, <image 1>, <image-1>, <|image_pad|>, <|vision_start|>, <ImageHere>, <start_of_image>, <im_patch>,
# [IMG], [image 1]
PLACEHOLDER = re.compile(
    r"<\|?/?(?:[a-z]+_)*(?:image|video|img|vid|audio|vision|im_patch)[a-z0-9_-]*(?: \d+)?\|?>"
    r"|\[(?:img|image|video)(?:[ _-]?\d+)?\]",
    re.IGNORECASE,
)

_SHOWN = (
    "show each file where it is spoken of, as a part of that message's content: "
    '{{"type": "{kind}", "path": ...}}'
)
_SHOW_IMAGE, _SHOW_VIDEO = _SHOWN.format(kind="image"), _SHOWN.format(kind="video")
_MESSAGES = (
    "write 'messages', a list such as "
    '{"role": "user", "content": ...}, {"role": "assistant", "content": ...}'
)
_ROLE = "write 'role': user for human, assistant for gpt, system for system"
_PATH = "name a file with 'path'"
_PART = 'write {{"type": "{kind}", "path": ...}} and name a file'
_SIZES = "the model's own sizes are used; take it out"

ROW = {
    **dict.fromkeys(
        ("image", "images", "image_path", "image_paths", "image_file", "img", "pictures", "media"),
        _SHOW_IMAGE,
    ),
    **dict.fromkeys(("video", "videos", "video_path", "video_paths", "video_file", "clips"), _SHOW_VIDEO),
    **dict.fromkeys(("audio", "audios"), "sound is not learned here; take it out"),
    # LLaVA and ShareGPT, Alpaca, question and answer pairs
    **dict.fromkeys(("conversations", "conversation", "dialog", "dialogue", "chat", "turns"), _MESSAGES),
    **dict.fromkeys(
        ("instruction", "input", "output", "query", "response", "history", "question", "answer"), _MESSAGES
    ),
    **dict.fromkeys(("chosen", "rejected", "completion"), _MESSAGES),
    **dict.fromkeys(
        ("system", "system_prompt"), "write it as the first of the 'messages', with the role system"
    ),
    **dict.fromkeys(("tools", "functions"), "tools are not learned here; take it out"),
    **dict.fromkeys(
        ("caption", "text"), "write 'prompt' in a row to generate, or 'messages' in one to understand"
    ),
    "negative_prompt": "what is not wanted is not learned; take it out",
}
MESSAGE = {
    "from": _ROLE,
    "value": "write 'content'",
    "text": "write 'content'",
    **dict.fromkeys(("image", "images", "media"), _SHOW_IMAGE),
    **dict.fromkeys(("video", "videos"), _SHOW_VIDEO),
    **dict.fromkeys(
        ("tool_calls", "tool_call_id", "function_call"), "tools are not learned here; take it out"
    ),
    **dict.fromkeys(("weight", "loss", "loss_mask"), "every word of the assistant counts alike; take it out"),
}
PART = {
    **dict.fromkeys(("image_url", "input_image", "img", "image_path"), _PART.format(kind="image")),
    **dict.fromkeys(("video_url", "input_video", "video_path"), _PART.format(kind="video")),
    **dict.fromkeys(("input_text", "output_text"), 'write {"type": "text", "text": ...}'),
    **dict.fromkeys(("audio", "input_audio", "audio_url"), "sound is not learned here; take it out"),
    **dict.fromkeys(
        ("url", "image", "video", "file", "filename", "source", "src", "data", "bytes", "base64"), _PATH
    ),
    **dict.fromkeys(("fps", "nframes", "max_frames"), "write 'num_frames', the frames to look at"),
    **dict.fromkeys(("video_start", "start"), "write 'start_s', in seconds"),
    **dict.fromkeys(("video_end", "end"), "write 'end_s', in seconds"),
    **dict.fromkeys(("min_pixels", "max_pixels", "detail"), _SIZES),
    **dict.fromkeys(("resized_height", "resized_width"), _SIZES),
}


TABLES = {"the row": ROW, "a message": MESSAGE}


def advice_for(where: str, key: str) -> str:
    """What to write in the place of a key (or a part's type) that others know, or "".

    Args:
        where: "the row", "a message", or any name of a part.
    """
    return TABLES.get(where, PART).get(key, "")
