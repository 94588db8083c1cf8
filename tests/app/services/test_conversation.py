"""One conversation in its four forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from app.services.conversation import (
    GONE,
    Conversation,
    ImagePart,
    Message,
    TextPart,
    VideoPart,
    to_browser,
    to_chatbot,
    to_model,
    to_openai,
)

PICTURE = ImagePart("/kept/a.png")
CLIP = VideoPart("/kept/b.mp4", 3, 0.5, 1.5)
ASKED = Message("user", (PICTURE, CLIP, TextPart("What is it?")))
TALK = Conversation((ASKED,)).with_answer("A heart.").with_message(Message("user", (TextPart("And now?"),)))
NOTHING = Conversation()


def test_gradios_chatbot_shows_files_and_words():
    assert to_chatbot(TALK) == [
        {"role": "user", "content": [{"path": "/kept/a.png"}, {"path": "/kept/b.mp4"}, "What is it?"]},
        {"role": "assistant", "content": "A heart."},
        {"role": "user", "content": ["And now?"]},
    ]
    assert to_chatbot(NOTHING) == []


def test_openais_messages_name_addresses():
    first, *_, last = to_openai(TALK, lambda path: f"http://here/{Path(path).name}")
    assert first == {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": "http://here/a.png"}},
            {"type": "video_url", "video_url": {"url": "http://here/b.mp4"}},
            {"type": "text", "text": "What is it?"},
        ],
    }
    assert last == {"role": "user", "content": [{"type": "text", "text": "And now?"}]}


def test_a_browsers_form_is_json_and_says_everything():
    form = to_browser(TALK)
    assert json.loads(json.dumps(form)) == form
    assert form[0]["parts"] == [
        {"type": "image", "path": "/kept/a.png"},
        {"type": "video", "path": "/kept/b.mp4", "num_frames": 3, "start_s": 0.5, "end_s": 1.5},
        {"type": "text", "text": "What is it?"},
    ]


def test_the_model_gets_pixels_or_the_file_to_read():
    pixels = np.zeros((2, 2, 3), np.uint8)
    parts = to_model(TALK, lambda part: pixels if part == PICTURE else None)[0]["content"]
    assert parts[0] == {"type": "image", "image": pixels}
    assert parts[1] == {"type": "video", "path": CLIP.path, "num_frames": 3, "start_s": 0.5, "end_s": 1.5}
    assert parts[2] == {"type": "text", "text": "What is it?"}


def test_where_the_user_spoke_last():
    assert TALK.last_question == 2
    assert TALK.before(2).last_question == 0
    assert NOTHING.last_question is None
    assert TALK.paths == [PICTURE.path, CLIP.path]


def test_earlier_files_that_are_gone_become_words():
    there = TALK.without_missing()
    assert there.messages[0].parts == (TextPart(GONE), TextPart(GONE), TextPart("What is it?"))
    assert TALK.before(1).without_missing() == TALK.before(1), "what the last message needs is asked for"
