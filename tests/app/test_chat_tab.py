"""The chat tab's handlers without a browser: what stays after a bad message."""

from __future__ import annotations

import asyncio
import time

import gradio as gr
import pytest

from app.chat_tab import ChatTab, kind_of, message_of, shown, user_turn
from app.engine import Engine
from core.errors import HaploOmniError, MediaError, PromptError
from core.weights import bundled_checkpoint

MEDIA = bundled_checkpoint().parents[1] / "media"
ANSWER = (64, 0.0, 1.0, 0, 1.0, 0)
CLIP = (4, 0, 0)


class Model:
    """A scripted model: three words, or an error."""

    profile = {"chat": {"num_frames": 4, "max_new_tokens": 8, "temperature": 0.0}}

    def __init__(self, error=None):
        self.error, self.seen = error, []

    def chat(self, turns, **_):
        self.seen = turns
        yield "one "
        if self.error:
            raise self.error
        yield "two "
        yield "three"


def tab_with(model):
    with gr.Blocks(analytics_enabled=False):
        return ChatTab(Engine(model), "t", "hint", [[{"text": "x", "files": []}]], False)


async def everything(stream):
    seen, error = [], None
    try:
        async for update in stream:
            seen.append(update)
    except gr.Error as caught:
        error = caught
    return seen, error


def send(tab, message, turns=()):
    return asyncio.run(everything(tab.send(message, list(turns), *CLIP, *ANSWER)))


def test_a_message_is_answered_and_remembered():
    model = Model()
    tab = tab_with(model)
    seen, error = send(tab, {"text": "hello", "files": [str(MEDIA / "star.png")]})
    turns = seen[-1][1]
    assert error is None and turns[-1] == {"role": "assistant", "content": "one two three"}
    seen, _ = send(tab, {"text": "and now?", "files": []}, turns)
    assert [turn["role"] for turn in model.seen] == ["user", "assistant", "user"]
    assert model.seen[0]["content"][0]["type"] == "image", "earlier media stay known"
    assert len(shown(seen[-1][1])) == 4
    tab.engine.close()


def test_a_slow_first_word_is_waited_for_in_words(monkeypatch):
    class Slow(Model):
        def chat(self, turns, **_):
            time.sleep(1.3)
            yield from super().chat(turns)

    monkeypatch.setattr("app.words.SLOW_S", 0.5)
    tab = tab_with(Slow())
    seen, _ = send(tab, {"text": "hello", "files": []})
    said = [update[3] for update in seen if isinstance(update[3], str)]
    assert said[0] == "Reading…" and "Reading… 1 s" in said and said[-1] == ""
    assert not any(text.startswith("Waiting") for text in said)
    tab.engine.close()


@pytest.mark.parametrize(
    ("message", "expected"),
    [({"text": " ", "files": []}, "type a question"), ({"text": "x", "files": [__file__]}, "neither")],
)
def test_a_bad_message_changes_nothing(message, expected):
    tab = tab_with(Model())
    seen, error = send(tab, message)
    assert seen == [] and expected in str(error)
    tab.engine.close()


@pytest.mark.parametrize("error", [PromptError("The conversation is too long."), RuntimeError("boom")])
def test_a_failure_puts_the_message_back(error):
    tab = tab_with(Model(error))
    before = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]
    message = {"text": "typed with care", "files": []}
    seen, shown_error = send(tab, message, before)
    _, turns, box, _ = seen[-1]
    assert turns == before and box.value == message if hasattr(box, "value") else box["value"] == message
    assert ("too long" in str(shown_error)) == isinstance(error, HaploOmniError) and "boom" not in str(shown_error)
    tab.engine.close()


def test_undo_gives_the_question_back():
    tab = tab_with(Model())
    seen, _ = send(tab, {"text": "hello", "files": [str(MEDIA / "star.png")]})
    turns = seen[-1][1]
    assert message_of(turns[0]) == {"text": "hello", "files": [str(MEDIA / "star.png")]}
    _, left, _, _ = tab.undo_last(turns)
    assert left == []
    tab.engine.close()


def test_clip_settings_are_checked_and_kept():
    clip = str(MEDIA / "circle_left.mp4")
    turn = user_turn({"text": "x", "files": [clip]}, 3, 0.5, 1.5)
    assert turn["content"][0] == {"type": "video", "path": clip, "num_frames": 3, "start_s": 0.5, "end_s": 1.5}
    with pytest.raises(MediaError, match="before it begins"):
        user_turn({"text": "x", "files": [clip]}, 3, 1.5, 0.5)
    with pytest.raises(MediaError, match=r"is 2\.\d s long"):
        user_turn({"text": "x", "files": [clip]}, 3, 60.0, None)
    with pytest.raises(PromptError, match="characters"):
        user_turn({"text": "x" * 5000, "files": []}, 3, 0.0, None)
    assert kind_of("A.PNG") == "image" and kind_of("b.MOV") == "video"
