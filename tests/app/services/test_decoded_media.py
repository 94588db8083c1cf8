"""A picture or clip is read once, whoever needs it how often, within a bound."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.engine.engine import Engine
from app.engine.tickets import Tickets
from app.services import decoded_media
from app.services.chat import ChatService, ClipSettings
from app.services.conversation import Conversation, ImagePart, VideoPart
from app.services.decoded_media import DecodedMedia, read_part
from app.services.library import Library
from core.requests import Sampling
from core.weights import bundled_checkpoint

MEDIA = bundled_checkpoint().parents[1] / "media"
STAR, CIRCLE = str(MEDIA / "star.png"), str(MEDIA / "circle_left.mp4")


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of what is decoded, one for each time, by whichever way."""
    from core.opencv import cv2

    seen: list[str] = []
    opened, capture = Image.open, cv2.VideoCapture

    def open_image(*given, **named):
        seen.append("picture")
        return opened(*given, **named)

    def open_clip(name, *given):
        seen.append("clip")
        return capture(name, *given)

    monkeypatch.setattr(Image, "open", open_image)
    monkeypatch.setattr(cv2, "VideoCapture", open_clip)
    return seen


@pytest.fixture
def chat(bundled):
    service = ChatService(Tickets(Engine(bundled)), Library())
    yield service
    service.tickets.engine.close()
    service.tickets.close()
    service.library.close()


def answer(chat, conversation: Conversation) -> str:
    async def last() -> str:
        ticket = chat.submit(chat.readable(conversation), Sampling(4), "owner")
        *_, words = [piece async for piece in chat.follow(ticket, "owner") if isinstance(piece, str)]
        return words

    return asyncio.run(last())


def test_sending_answering_and_later_turns_read_each_file_once(chat, reads, tmp_path):
    clip = tmp_path / "sent.mp4"  # a file of its own, which nobody has walked through yet
    clip.write_bytes(Path(CIRCLE).read_bytes())
    talk = Conversation((chat.message("What is it?", [STAR, str(clip)], ClipSettings()),))
    assert reads.count("picture") == 1
    walks = reads.count("clip")
    assert walks == 3, "twice to see what it holds, once for its frames"
    for question in ("And now?", "And then?"):
        talk = talk.with_answer(answer(chat, talk))
        talk = talk.with_message(chat.message(question, [], ClipSettings()))
    answer(chat, talk)
    assert reads.count("picture") == 1
    assert reads.count("clip") == walks


def test_what_is_forgotten_is_read_again(chat, reads):
    talk = Conversation((chat.message("What is it?", [STAR], ClipSettings()),))
    chat.forget(talk)
    assert answer(chat, talk)
    assert reads.count("picture") == 2


def test_decoded_media_answer_as_files_do(chat, bundled, tmp_path):
    """A photo that says how it is to be turned is turned once."""
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(MEDIA / "beside.png").convert("RGB").resize((120, 80))
    picture.save(turned, exif=exif, quality=95)
    asked = chat.message("Describe the picture.", [str(turned), CIRCLE], ClipSettings(3))
    read = [{"type": "image", "path": str(turned)}, {"type": "video", "path": CIRCLE, "num_frames": 3}]
    message = {"role": "user", "content": [*read, {"type": "text", "text": "Describe the picture."}]}
    said = "".join(bundled.chat([message], max_new_tokens=4, temperature=0.0))
    assert answer(chat, Conversation((asked,))) == said
    assert read_part(asked.parts[0]).shape == (120, 80, 3)


def test_an_expired_file_is_dropped_with_what_was_read_of_it(chat, reads, monkeypatch):
    (part, *_) = chat.message("What is it?", [STAR], ClipSettings()).parts
    monkeypatch.setattr("app.services.library.KEEP_S", -1.0)
    chat.library.new_path(".mp4")
    assert not Path(part.path).exists()
    with pytest.raises(Exception, match="does not exist"):
        chat.library.read(part)


def test_a_bad_file_leaves_nothing_in_memory(chat, tmp_path):
    with pytest.raises(ValueError, match="neither"):
        chat.message("x", [STAR, __file__], ClipSettings())
    assert not list(chat.library.uploads.iterdir())


def test_the_bound_holds(monkeypatch):
    counted = []

    def read(part):
        counted.append(part)
        return np.zeros(40, np.uint8)

    monkeypatch.setattr(decoded_media, "read_part", read)
    media = DecodedMedia(limit_bytes=100)
    first, second, third = (ImagePart(str(number)) for number in range(3))
    for part in (first, second, first, third):  # the second is the one that was not used for longest
        media.read(part)
        assert media.size_bytes <= 100
    media.read(first)
    media.read(third)
    assert counted == [first, second, third]
    media.read(second)
    assert counted[3:] == [second]
    media.forget([first.path, second.path, third.path])
    assert media.size_bytes == 0
    media.limit_bytes = 10
    media.read(first)
    assert media.size_bytes == 0, "larger than all of the room"


def test_other_settings_of_a_clip_are_other_frames():
    media = DecodedMedia()
    two, three = media.read(VideoPart(CIRCLE, 2)), media.read(VideoPart(CIRCLE, 3))
    assert (len(two), len(three)) == (2, 3)
