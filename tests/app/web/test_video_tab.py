"""Anything typed or sent gets either an estimate or exactly the sentence that Generate would give."""

from __future__ import annotations

import asyncio
import math
import re
from html import unescape

import gradio as gr
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.engine.engine import STOPPED, Engine
from app.engine.jobs import Finished, State
from app.engine.memory import plan_memory
from app.engine.tickets import Tickets
from app.services.estimates import Estimates
from app.services.library import Library
from app.services.video import MAX_PROMPT, VideoService, video_request
from app.settings import Settings
from app.web.video_tab import VideoTab
from core.errors import HaploOmniError, StoppedError
from core.pipelines.text_to_video import text_to_video
from tests.app.services.test_fields import ODD

UNEXPECTED = "Something unexpected"
GOOD = {
    "frames": 9,
    "height": 64,
    "width": 64,
    "steps": 2,
    "guidance": 4.0,
    "seed": 1,
    "fresh": False,
    "prompt": "a red circle",
}


@pytest.fixture(scope="module")
def tab(bundled):
    memory = plan_memory(Settings(dtype="float32", device="cpu"))
    # not attached: these tests run nothing, and the model is shared
    engine, library = Engine(bundled), Library()
    with gr.Blocks(analytics_enabled=False):
        video = VideoService(Tickets(engine), memory, library)
        made = VideoTab(video, Estimates(engine, memory), ["a red circle"])
    yield made
    engine.close()
    library.close()


def told(tab, **form) -> tuple[bool, str]:
    """Whether the line is an estimate, and its words."""
    line, _, _ = tab.update_estimate(**form)
    kind, words = re.fullmatch(r'<p class="([a-z-]+)">(.+)</p>', line, re.DOTALL).groups()
    return kind == "fits", unescape(words)


def refusal(tab, monkeypatch, **form) -> str:
    """The sentence that Generate gives; empty where denoising would begin."""

    def first_step(omni, request):
        raise HaploOmniError("")

    async def generate():
        async for _ in tab.make(**form):
            pass

    with monkeypatch.context() as patch:
        patch.setattr("app.services.video.text_to_video", first_step)
        patch.setattr(tab.video.memory, "plan", tab.video.memory.plan)  # the next form meets the same one
        with pytest.raises(gr.Error) as caught:
            asyncio.run(generate())
    return caught.value.message


def anything(*usual):
    return st.sampled_from([*usual, *usual, *usual, *ODD]) | st.integers(-40, 400) | st.floats()


FORMS = st.fixed_dictionaries(
    {
        "frames": anything(1, 7, 9, 17, 49, 8.0),
        "height": anything(32, 64, 128, 256),
        "width": anything(33, 64, 128, 256.0),
        "steps": anything(1, 25, 200),
        "guidance": anything(1, 4, 4.5),
        "seed": anything(0, 1, 2**32),
        "fresh": st.booleans(),
        "prompt": st.sampled_from(
            ["a", "a red circle", "word " * 200, "x" * (MAX_PROMPT + 1), 5, "half \ud83d", *ODD[11:]]
        )
        | st.text(min_size=1, max_size=40).filter(str.strip),
        "negative": st.sampled_from(["", "blurry", None, 3, "word " * 390]),
    }
)


@given(FORMS)
@example({**GOOD, "negative": ""})
@example({**GOOD, "frames": 7, "negative": ""})
@example({**GOOD, "width": 33, "negative": ""})
@example({**GOOD, "frames": 49, "height": 256, "width": 256, "negative": ""})
@settings(max_examples=150, deadline=None)
def test_the_line_is_an_estimate_if_and_only_if_making_would_start(tab, form):
    fits, words = told(tab, **form)
    with pytest.MonkeyPatch.context() as monkeypatch:
        said = refusal(tab, monkeypatch, **form)
    assert UNEXPECTED not in words
    assert fits == (said == "")
    assert words.startswith("Takes ") if fits else words == said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"frames": 7}, "nearest is 9"),
        ({"frames": None}, "Takes"),
        ({"width": 33}, "nearest is 32"),
        ({"width": 64.0}, "Takes"),
        ({"width": 64.5}, "whole number"),
        ({"width": "64"}, "whole number"),
        ({"height": 10**400}, "whole number"),
        ({"height": -16}, "nearest is 32"),
        ({"guidance": math.nan}, "nan is not possible"),
        ({"guidance": "strong"}, "must be a number"),
        ({"seed": -1}, "choose 0 to"),
        ({"seed": -1, "fresh": True}, "Takes"),
        ({"frames": 49, "height": 256, "width": 256}, "context holds"),
        ({"prompt": "word " * 390}, "prompt takes"),
        ({"prompt": "x" * 2001}, "2001 characters; at most 2000"),
        ({"prompt": " "}, "Takes"),
        ({"prompt": None}, "Takes"),
        ({"prompt": "half a pair \ud83d"}, "Takes"),
        ({"prompt": ["a"]}, "must be text"),
    ],
)
def test_the_line_says(tab, change, expected):
    fits, words = told(tab, **{**GOOD, **change})
    assert expected in words
    assert fits == (expected == "Takes")


def test_a_clip_beyond_the_memory_gets_the_same_sentence_from_both(tab, monkeypatch):
    from dataclasses import replace

    from quantization import hardware

    real = hardware.detect

    def short(device, ours=0):
        return replace(real(device), free_bytes=2**20, host_free_bytes=2**20)

    monkeypatch.setattr(hardware, "detect", short)
    fits, words = told(tab, **GOOD)
    assert not fits
    assert "memory" in words
    assert refusal(tab, monkeypatch, **GOOD, negative="") == words


def test_what_passes_the_check_is_made(bundled):
    request = video_request(
        bundled, "half a pair \ud83d", None, height=64.0, width=64, num_frames=1, num_inference_steps=1
    )
    *_, clip = text_to_video(bundled, request)
    assert clip.frames.shape == (1, 64, 64, 3)
    assert clip.recipe["prompt"] == "half a pair \ufffd"


def test_an_engine_that_stopped_is_told_in_the_line(tab, monkeypatch):
    monkeypatch.setattr(Engine, "trouble", STOPPED)
    assert told(tab, **GOOD) == (False, STOPPED)
    assert refusal(tab, monkeypatch, **GOOD, negative="") == STOPPED


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), StoppedError(STOPPED)])
def test_whatever_ends_a_job_reaches_the_page_as_a_sentence(tab, monkeypatch, error):
    async def follow(*_):
        yield 1, Finished(State.FAILED, error)

    monkeypatch.setattr(tab.video.tickets, "follow", follow)
    said = refusal(tab, monkeypatch, **GOOD, negative="")
    assert said == STOPPED if isinstance(error, StoppedError) else UNEXPECTED in said


@pytest.mark.parametrize("saved", [*ODD[11:], {"video.form": 5}, {"video.form": [1]}, {"video.kept": [7]}])
def test_whatever_a_browser_sends_back_the_form_stays(tab, saved):
    kept, *form = tab.restore(saved)
    assert kept is None and len(form) == len(tab.form)
    assert all(value == gr.skip() for value in form)


def test_a_form_comes_back_as_it_was(tab):
    values = [9, 64, 128, 5, 2.5, 7, False, "a red circle", "", True]
    kept, *form = tab.restore({"video.form": values, "video.kept": [{"ticket": "abc"}]})
    assert kept == {"ticket": "abc"} and form == values


def test_an_unknown_ticket_is_told_and_takes_nothing_from_the_page(tab):
    (update,) = asyncio.run(all_of(tab.reattach({"ticket": "nobody's"})))
    assert "not known here" in update[0]["text"]
    assert all(value == gr.skip() for value in update[1:])
    (update,) = asyncio.run(all_of(tab.reattach(None)))
    assert all(value == gr.skip() for value in update)


async def all_of(updates) -> list:
    return [update async for update in updates]
