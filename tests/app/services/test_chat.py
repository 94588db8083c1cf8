"""A message is checked before it is taken."""

from __future__ import annotations

import pytest

from app.engine.tickets import Tickets
from app.services.chat import ChatService, ClipSettings
from app.services.conversation import VideoPart
from app.services.library import Library
from core.errors import MediaError, PromptError
from core.media import kind_of
from core.weights import bundled_checkpoint

CLIP = str(bundled_checkpoint().parents[1] / "media" / "circle_left.mp4")


@pytest.fixture
def chat():
    service = ChatService(Tickets(engine=None), Library())
    yield service
    service.tickets.close()
    service.library.close()


def test_clip_settings_are_checked_and_kept(chat):
    (part, _) = chat.message("x", [CLIP], ClipSettings(3, 0.5, 1.5)).parts
    assert part == VideoPart(part.path, 3, 0.5, 1.5)
    with pytest.raises(MediaError, match="before it begins"):
        chat.message("x", [CLIP], ClipSettings(3, 1.5, 0.5))
    with pytest.raises(MediaError, match=r"is 2\.\d s long"):
        chat.message("x", [CLIP], ClipSettings(3, 60.0, None))
    with pytest.raises(PromptError, match="characters"):
        chat.message("x" * 5000, [], ClipSettings(3))
    assert kind_of("A.PNG") == "image" and kind_of("b.MOV") == "video"
