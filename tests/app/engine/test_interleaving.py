"""Chats and clips that share the one model, step by step: everybody gets what they would get alone."""

from __future__ import annotations

import queue
import random
import threading

import numpy as np
import pytest

from app.engine.engine import Engine
from app.engine.jobs import Finished, Progress, State
from app.engine.memory import plan_memory
from app.engine.turns import Lane
from app.settings import Settings
from core import DenoiseStep, GeneratedVideo, HaploOmni
from core.pipelines.guidance import Guidance
from core.pipelines.text_to_video import text_to_video

ASKED = ("Who are you?", "Hello", "What can you do?")
CLIPS = (("a red circle", 9, 7), ("a blue star moving left", 17, 8))


@pytest.fixture(scope="module")
def loaded():
    """The bundled model and the manager of its memory."""
    memory = plan_memory(Settings(checkpoint=None, device="cpu"))
    omni = HaploOmni.load(None, "cpu", memory.dtype, None, memory.load_options())
    memory.attach(omni)
    return memory, omni


def chat(omni, question, seed=1):
    return omni.chat([{"role": "user", "content": question}], max_new_tokens=24, temperature=0.8, seed=seed)


def request(omni, prompt, frames, seed):
    return omni.video_request(
        prompt, height=64, width=64, num_frames=frames, num_inference_steps=3, seed=seed
    )


def clip(memory, omni, asked):
    return memory.by_plan(memory.plan_for(asked), text_to_video(omni, asked))


def result(items):
    """The words of a chat, or the frames of a clip."""
    last = items[-1]
    return last.frames.tobytes() if isinstance(last, GeneratedVideo) else "".join(items)


@pytest.fixture(scope="module")
def alone(loaded):
    """What every job gives with the model to itself."""
    memory, omni = loaded
    made = [result(list(chat(omni, question))) for question in ASKED]
    return made + [result(list(clip(memory, omni, request(omni, *asked)))) for asked in CLIPS]


@pytest.mark.parametrize("seed", range(4))
def test_random_interleavings_change_no_byte(loaded, alone, seed):
    memory, omni = loaded
    rng = random.Random(seed)
    jobs = [chat(omni, question) for question in ASKED]
    jobs += [clip(memory, omni, request(omni, *asked)) for asked in CLIPS]
    made = [[] for _ in jobs]
    live = list(range(len(jobs)))
    while live:
        number = rng.choice(live)
        try:
            made[number].append(next(jobs[number]))
        except StopIteration:
            live.remove(number)
    assert [result(items) for items in made] == alone


def test_how_a_clip_runs_is_left_behind_by_no_turn(loaded):
    memory, omni = loaded
    usual = memory.plan
    asked = request(omni, *CLIPS[0])
    other = memory.plan_for(omni.video_request("a red circle", height=256, width=256, num_frames=49))
    steps = memory.by_plan(other, text_to_video(omni, asked))
    during = []
    predict = omni.model.predict_noise

    def watched(*given, **named):
        during.append(omni.guidance)
        return predict(*given, **named)

    omni.model.predict_noise = watched
    try:
        for _ in steps:
            assert memory.plan is usual
            assert omni.guidance is Guidance(usual.mode.guidance.value)
    finally:
        del omni.model.predict_noise
    assert set(during) == {Guidance(other.mode.guidance.value)}


def test_a_clip_that_is_stopped_leaves_the_usual_plan(loaded):
    memory, omni = loaded
    usual = memory.plan
    steps = clip(memory, omni, request(omni, *CLIPS[0]))
    next(steps)
    steps.close()
    assert memory.plan is usual
    assert list(steps) == []


def test_a_chat_is_answered_while_a_clip_runs(loaded, alone):
    memory, omni = loaded
    engine = Engine(omni)
    order: queue.Queue[str] = queue.Queue()
    ended = {name: threading.Event() for name in ("chat", "clip")}
    made = {"chat": [], "clip": []}

    def listener(name):
        def listen(event):
            if isinstance(event, Progress):
                made[name].append(event.value)
                order.put(name)
            elif isinstance(event, Finished):
                assert event.state is State.DONE, event.error
                ended[name].set()

        return listen

    asked = omni.video_request("a red circle", height=64, width=64, num_frames=9, num_inference_steps=60)
    begun = threading.Event()

    def work(_):
        for item in clip(memory, omni, asked):
            begun.set()
            yield item

    try:
        engine.submit(work, listener("clip"), lane=Lane.CLIP, owner="ada")
        assert begun.wait(60)
        engine.submit(lambda _: chat(omni, ASKED[0]), listener("chat"), lane=Lane.CHAT, owner="ben")
        assert ended["chat"].wait(120)
        assert not ended["clip"].is_set(), "the chat did not wait for the clip's end"
        assert ended["clip"].wait(120)
    finally:
        engine.close()
    assert result(made["chat"]) == alone[0]
    assert sum(isinstance(item, DenoiseStep) for item in made["clip"]) == 60
    seen = list(order.queue)
    words = [place for place, name in enumerate(seen) if name == "chat"]
    gaps = np.diff(words)
    assert len(words) >= 2
    assert gaps.max() <= 3, "between two pieces of a chat a clip takes at most two steps"
