"""The chat tab's handlers without a browser: what stays after a bad message."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from app.engine.engine import SHUTTING_DOWN, Engine
from app.engine.tickets import Tickets
from app.services.chat import MAX_TEXT, ChatService, chat_sampling
from app.services.conversation import GONE, Conversation, Message, TextPart, to_chatbot
from app.services.library import Library
from app.web.chat_forms import kept_by
from app.web.chat_tab import ChatTab, joined, to_textbox
from core.errors import HaploOmniError, PromptError
from core.pipelines.prefill import PrefillStep
from core.profile import ChatDefaults, released_profile
from core.weights import bundled_checkpoint

MEDIA = bundled_checkpoint().parents[1] / "media"
ANSWER = (64, 0.0, 1.0, 0, 1.0, 0)
CLIP = (4, 0, 0)
EMPTY = Conversation()


class Model:
    """A scripted model: three words, or an error."""

    profile = replace(released_profile(), chat=ChatDefaults(max_new_tokens=8, temperature=0.0, num_frames=4))

    def __init__(self, error=None):
        self.error, self.seen = error, []

    def chat_steps(self, turns, _):
        self.seen = turns
        yield "one "
        if self.error:
            raise self.error
        yield "two "
        yield "three"


@pytest.fixture
def tab_with(tmp_path, monkeypatch):
    """``tab_with(model)``: a tab over a scripted model, with folders of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = []

    def make(model):
        with gr.Blocks(analytics_enabled=False):
            chat = ChatService(Tickets(Engine(model)), Library())
            made.append(ChatTab(chat, "t", "hint", [[{"text": "x", "files": []}]], False))
        return made[-1]

    yield make
    for tab in made:
        tab.chat.library.close()


@pytest.fixture
def upload(tmp_path):
    """``upload("star.png")``: an example file as the web framework's upload cache holds it."""
    cache = tmp_path / "cache"
    cache.mkdir()

    def put(name):
        return shutil.copy(MEDIA / name, cache / name)

    put.cache = cache
    return put


async def everything(stream):
    seen, error = [], None
    try:
        async for update in stream:
            seen.append(update)
    except gr.Error as caught:
        error = caught
    return seen, error


def value_of(box):
    """What an update puts into the box."""
    return box.constructor_args["value"]


def send(tab, message, conversation=EMPTY):
    return asyncio.run(everything(tab.send(message, conversation, *CLIP, *ANSWER)))


def test_a_message_is_answered_and_remembered(tab_with):
    model = Model()
    tab = tab_with(model)
    seen, error = send(tab, {"text": "hello", "files": [str(MEDIA / "star.png")]})
    turns = seen[-1][1]
    assert error is None and turns.messages[-1] == Message("assistant", (TextPart("one two three"),))
    seen, _ = send(tab, {"text": "and now?", "files": []}, turns)
    assert [turn["role"] for turn in model.seen] == ["user", "assistant", "user"]
    assert model.seen[0]["content"][0]["type"] == "image", "earlier media stay known"
    assert len(to_chatbot(seen[-1][1])) == 4


def test_a_slow_first_word_is_waited_for_in_words(tab_with, monkeypatch):
    class Slow(Model):
        def chat_steps(self, turns, sampling):
            time.sleep(1.3)
            yield from super().chat_steps(turns, sampling)

    monkeypatch.setattr("app.formatting.SLOW_S", 0.5)
    tab = tab_with(Slow())
    seen, _ = send(tab, {"text": "hello", "files": []})
    said = [update[3] for update in seen if isinstance(update[3], str)]
    assert said[0] == "Reading…"
    assert any(re.fullmatch(r"Reading… \d+ s", text) for text in said), said
    assert said[-1] == ""
    assert not any(text.startswith("Waiting") for text in said)


def test_how_far_a_long_conversation_is_read_is_said(tab_with):
    class Long(Model):
        def chat_steps(self, turns, sampling):
            for step in (PrefillStep(0, 2), PrefillStep(1, 2), ""):
                yield step
                time.sleep(0.3)  # of two that come together only the newest is told
            yield from super().chat_steps(turns, sampling)

    seen, error = send(tab_with(Long()), {"text": "hello", "files": []})
    said = [update[3] for update in seen if isinstance(update[3], str)]
    assert error is None
    assert [text for text in said if text.startswith("Reading part")] == [
        "Reading part 1 of 2…",
        "Reading part 2 of 2…",
    ]
    assert seen[-1][1].messages[-1] == Message("assistant", (TextPart("one two three"),))


@pytest.mark.parametrize(
    ("message", "expected"),
    [({"text": " ", "files": []}, "type a question"), ({"text": "x", "files": [__file__]}, "neither")],
)
def test_a_bad_message_changes_nothing(tab_with, message, expected):
    tab = tab_with(Model())
    seen, error = send(tab, message)
    assert seen == [] and expected in str(error)


@pytest.mark.parametrize("error", [PromptError("The conversation is too long."), RuntimeError("boom")])
def test_a_failure_puts_the_message_back(tab_with, error):
    tab = tab_with(Model(error))
    before = Conversation((Message("user", (TextPart("a"),)),)).with_answer("b")
    message = {"text": "typed with care", "files": []}
    seen, shown_error = send(tab, message, before)
    _, turns, _, _, returned, _ = seen[-1]
    assert turns == before
    assert returned == message
    box, left = tab.give_back({"text": "typed meanwhile", "files": []}, returned)
    assert value_of(box)["text"] == "typed with care\ntyped meanwhile"
    assert left is None, "given back once"
    assert ("too long" in str(shown_error)) == isinstance(error, HaploOmniError) and "boom" not in str(
        shown_error
    )


def test_undo_gives_the_question_back_before_what_was_typed(tab_with, upload):
    tab = tab_with(Model())
    seen, _ = send(tab, {"text": "hello", "files": [upload("star.png")]})
    turns = seen[-1][1]
    (own,) = turns.paths
    assert to_textbox(turns.messages[0]) == {"text": "hello", "files": [own]}
    _, left, box, _, kept = tab.undo_last(turns, {"text": "a draft", "files": []}, seen[-1][5])
    assert kept is None, "nothing is left for the browser to keep"
    assert left == Conversation()
    assert value_of(box) == {"text": "hello\na draft", "files": [own]}
    _, left, *_ = tab.undo_last(Conversation(), None, None)
    assert left == Conversation()


def test_what_is_typed_while_an_answer_comes_stays(tab_with):
    """Only sending empties the box: not asking again, an answer's end, a stop or clearing."""
    tab = tab_with(Model())
    *_, turns, _, _, _, kept = send(tab, {"text": "hello", "files": []})[0][-1]
    again, error = asyncio.run(everything(tab.ask_again(turns, *ANSWER)))
    assert error is None
    boxes = [update[2] for update in again]
    boxes += [asyncio.run(tab.stop(kept))[2], tab.clear_all(turns, kept)[2]]
    changed = [box for box in boxes if isinstance(box, gr.MultimodalTextbox)]
    assert len(changed) >= 4
    assert all("value" not in box.constructor_args for box in changed)


def test_joined_messages_lose_nothing():
    first, draft = {"text": "a", "files": ["1", "2"]}, {"text": "b", "files": ["2", "3"]}
    assert joined(first, draft) == {"text": "a\nb", "files": ["1", "2", "3"]}
    for nothing in (None, {}, {"text": "", "files": []}, {"text": None, "files": None}):
        assert joined(first, nothing) == first


def test_a_conversation_outlives_the_upload_cache(tab_with, upload):
    """Another program may clean the cache; shown, asked about, undone and asked again all the same."""
    model = Model()
    tab = tab_with(model)
    message = {"text": "what is it?", "files": [upload("star.png"), upload("circle_left.mp4")]}
    turns = send(tab, message)[0][-1][1]
    shutil.rmtree(upload.cache)
    for path in (
        part["path"] for message in to_chatbot(turns) for part in message["content"] if isinstance(part, dict)
    ):
        assert Path(path).read_bytes() == (MEDIA / Path(path).name).read_bytes()
        assert Path(path).is_relative_to(tab.chat.library.uploads)
    _, error = send(tab, {"text": "and now?", "files": []}, turns)
    assert error is None
    assert [part["type"] for part in model.seen[0]["content"]] == ["image", "video", "text"]
    _, error = asyncio.run(everything(tab.ask_again(turns, *ANSWER)))
    assert error is None
    _, _, box, *_ = tab.undo_last(turns, None, None)
    files = value_of(box)["files"]
    resent, error = send(tab, {"text": "what is it?", "files": files})
    assert error is None
    assert resent[-1][1].messages[0].paths == files, "no further copy"


def test_of_two_conversations_with_one_upload_each_has_its_own(tab_with, upload):
    first, second = tab_with(Model()), tab_with(Model())
    path = upload("star.png")
    ours, theirs = (send(tab, {"text": "hello", "files": [path]})[0][-1][1] for tab in (first, second))
    first.chat.library.close()
    assert not Path(ours.paths[0]).exists()
    assert Path(theirs.paths[0]).exists()
    assert Path(path).exists(), "the cache is not ours to clean"


def test_an_earlier_file_that_is_gone_does_not_end_the_conversation(tab_with, upload):
    model = Model()
    tab = tab_with(model)
    turns = send(tab, {"text": "hello", "files": [upload("star.png")]})[0][-1][1]
    Path(turns.paths[0]).unlink()
    seen, error = send(tab, {"text": "and now?", "files": []}, turns)
    assert error is None
    assert model.seen[0]["content"][0] == {"type": "text", "text": GONE}
    assert "no longer kept" in seen[-1][3]
    assert seen[-1][1].messages[0] == turns.messages[0], "the conversation itself stays as it was"


def test_an_upload_that_is_gone_before_it_is_sent(tab_with, upload):
    tab = tab_with(Model())
    path = upload("star.png")
    Path(path).unlink()
    seen, error = send(tab, {"text": "hello", "files": [path]})
    assert seen == []
    assert "star.png" in str(error)


def test_a_closing_program_ends_an_answer_with_a_sentence(tab_with):
    tab = tab_with(Model())
    tab.chat.tickets.engine.close()
    seen, error = send(tab, {"text": "typed with care", "files": []})
    assert SHUTTING_DOWN in str(error)
    assert seen == [], "what was typed is still in the box"


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), BaseException("x")])
def test_nothing_that_a_job_raises_ends_the_server(tab_with, error):
    tab = tab_with(Model(error))
    seen, said = send(tab, {"text": "hello", "files": []})
    assert "unexpected" in str(said)
    assert seen[-1][1] == Conversation()


def test_text_that_is_cut_in_a_character_is_read(tab_with):
    model = Model()
    tab = tab_with(model)
    seen, error = send(tab, {"text": "who are you \ud83d ?", "files": []})
    assert error is None
    assert model.seen[-1]["content"][-1]["text"] == "who are you \ufffd ?"
    str(to_chatbot(seen[-1][1])).encode()


def test_a_long_text_is_counted_and_stays(tab_with):
    tab = tab_with(Model())
    seen, error = send(tab, {"text": "x" * (MAX_TEXT + 1), "files": []})
    assert seen == []
    assert f"{MAX_TEXT + 1} characters; at most {MAX_TEXT}" in str(error)
    assert tab.box.max_plain_text_length > 2**30, "pasted text never becomes a file"


class Silent(Model):
    """Says nothing until it is told to, then fails."""

    def __init__(self):
        super().__init__()
        self.release = threading.Event()

    def chat_steps(self, turns, _):
        self.seen = turns
        yield ""
        self.release.wait(20)
        yield ""
        raise PromptError("Nothing comes to mind.")


def kept_of(seen):
    """What the browser keeps after all updates."""
    values = [update[5] for update in seen if update[5] is None or "ticket" in update[5]]
    return values[-1]


def restored(tab, kept, draft=None):
    """Conversation, box, status and record after a load of the page."""
    saved = {"t.kept": [kept], "t.draft": [draft]}
    _, conversation, box, status, held, *_ = tab.restore(saved)
    return conversation, box, status, held


def test_an_answered_conversation_is_found_again(tab_with):
    tab = tab_with(Model())
    seen, _ = send(tab, {"text": "hello", "files": [str(MEDIA / "star.png")]})
    conversation, box, status, _ = restored(tab, kept_of(seen))
    assert conversation == seen[-1][1] and status == "" and box == gr.skip()


def test_a_failed_message_is_in_the_box_once_however_often_the_page_is_loaded(tab_with):
    tab = tab_with(Silent())
    tab.chat.tickets.engine.omni.release.set()
    before = send(tab_with(Model()), {"text": "a", "files": []})[0][-1][1]
    seen, error = send(tab, {"text": "typed with care", "files": []}, before)
    assert "Nothing comes" in str(error) and seen[-1][4]["text"] == "typed with care"
    # the page has put it back, and what is in the box is kept
    conversation, box, _, held = restored(tab, kept_of(seen), {"text": "typed with care", "files": []})
    for _ in range(3):
        assert conversation == before and value_of(box)["text"] == "typed with care"
        conversation, box, _, held = restored(tab, held, value_of(box))


def test_a_message_whose_failure_the_page_did_not_see_returns_once(tab_with):
    tab = tab_with(Silent())
    before = send(tab_with(Model()), {"text": "a", "files": []})[0][-1][1]
    asked = before.with_message(Message("user", (TextPart("typed with care"),)))
    ticket = tab.chat.submit(asked, chat_sampling(*ANSWER), "")
    tab.chat.tickets.engine.omni.release.set()
    kept = kept_by(ticket, asked)
    while tab.chat.tickets.get(ticket, "").ended is None:
        time.sleep(0.01)
    conversation, box, status, held = restored(tab, kept, {"text": "typed meanwhile", "files": []})
    assert conversation == before and "Nothing comes" in status
    assert value_of(box)["text"] == "typed with care\ntyped meanwhile"
    again, box, status, _ = restored(tab, held, value_of(box))
    assert again == before and value_of(box)["text"] == "typed with care\ntyped meanwhile" and status == ""


def test_a_stop_before_the_first_word_is_as_if_nothing_had_been_asked(tab_with):
    model = Silent()
    tab = tab_with(model)
    answered = send(tab_with(Model()), {"text": "a", "files": []})[0][-1][1]

    async def stopped(replies):
        seen = []
        async for update in replies:
            seen.append(update)
            if len(seen) == 1:
                tab.chat.tickets.stop(update[5]["ticket"], "")
                model.release.set()
        return seen

    seen = asyncio.run(stopped(tab.send({"text": "b", "files": []}, answered, *CLIP, *ANSWER)))
    assert seen[-1][1] == answered and seen[-1][3] == "Stopped." and seen[-1][4]["text"] == "b"
    model.release.clear()
    # asked again and stopped: the earlier answer stands, also after a load of the page
    seen = asyncio.run(stopped(tab.ask_again(answered, *ANSWER)))
    assert seen[-1][1] == answered and seen[-1][4] is None
    conversation, box, _, _ = restored(tab, kept_of(seen))
    assert conversation == answered and box == gr.skip()


def test_a_picture_that_returned_to_the_box_is_there_after_a_load(tab_with, upload):
    tab = tab_with(Model())
    seen, _ = send(tab, {"text": "hello", "files": [upload("star.png")]})
    _, _, box, *_ = tab.undo_last(seen[-1][1], None, seen[-1][5])
    draft = {"text": "hello", "files": [{"path": path} for path in value_of(box)["files"]]}
    _, box, _, _ = restored(tab, None, draft)
    assert value_of(box) == {"text": "hello", "files": [file["path"] for file in draft["files"]]}
    foreign = {"text": "x", "files": [{"path": "/etc/passwd"}, {"path": 5}, "x", {"path": "gone.png"}]}
    _, box, _, _ = restored(tab, None, foreign)
    assert value_of(box) == {"text": "x", "files": []}
