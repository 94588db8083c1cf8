"""A conversation read in chunks is the conversation read at once, and what is given up comes back."""

from __future__ import annotations

import copy
from itertools import islice
from types import SimpleNamespace
from weakref import WeakSet

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import ShortMemoryError
from core.pipelines import chat as chatting
from core.pipelines.chat import decode_steps, prepare
from core.pipelines.prefill import CHUNK_TOKENS, PrefillStep, TalkCache, chunk_ends
from core.requests import Sampling

TEXT = {"type": "text", "text": "What is it? " * 20}
IMAGE = {"type": "image"}
VIDEO = {"type": "video"}
# parts, sizes of the pictures, frames of the clips
TALKS = {
    "text": ([TEXT], [], []),
    "picture": ([IMAGE, TEXT], [(60, 90)], []),
    "pictures": ([IMAGE, IMAGE, TEXT, IMAGE], [(60, 90), (100, 30), (50, 50)], []),
    "clip": ([TEXT, VIDEO, TEXT], [], [5]),
    "clips of different lengths": ([VIDEO, VIDEO, TEXT, IMAGE], [(60, 90)], [5, 2]),
}


@pytest.fixture
def short_chunks(monkeypatch):
    monkeypatch.setattr("core.pipelines.prefill.CHUNK_TOKENS", 16)


@pytest.fixture(scope="module")
def runtime_of(bundled, reference_model, reference_processor):
    """``runtime_of("a", torch.float32)``: what a chat needs of a reference checkpoint, or of the bundled."""

    def make(name, dtype=torch.float32):
        model, processor = copy.deepcopy(bundled.model).to(dtype), bundled.processor
        if name != "bundled":
            model, processor = reference_model(name, dtype), reference_processor(name)
        return SimpleNamespace(
            model=model,
            processor=processor,
            device=torch.device("cpu"),
            caches=WeakSet(),
            on_out_of_memory=None,
        )

    return make


def inputs_of(runtime, talk):
    """The model's inputs for one of the talks, of random pictures and clips."""
    parts, sizes, lengths = TALKS[talk]
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]
    clips = [rng.integers(0, 255, (length, 90, 90, 3), dtype=np.uint8) for length in lengths]
    return runtime.processor([{"role": "user", "content": parts}], pictures, clips)


def exhausted(steps):
    """All steps, and what the generator returns."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def at_once(runtime, inputs):
    """The next token's scores by the model's own forward."""
    with torch.no_grad():
        return runtime.model(**inputs, logits_to_keep=1).logits[:, -1].float()


def long_talk(**part):
    """A conversation of some hundred tokens about a picture and a clip."""
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 255, (80, 80, 3), dtype=np.uint8))
    clip = {"type": "video", "video": rng.integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)}
    words = {"type": "text", "text": "Describe what you see, all of it.", **part}
    return [{"role": "user", "content": [{"type": "image", "image": picture}, clip, words]}]


# -- where it is cut


@pytest.mark.parametrize(
    ("length", "ends"),
    [
        (1, [1]),
        (CHUNK_TOKENS + CHUNK_TOKENS // 2 - 1, [767]),
        (CHUNK_TOKENS + CHUNK_TOKENS // 2, [512, 768]),
        (2000, [512, 1024, 1536, 2000]),
    ],
)
def test_words_are_cut_into_even_chunks(length, ends):
    assert chunk_ends(torch.arange(length)) == ends


def test_pictures_are_never_cut():
    starts = torch.arange(3000)
    starts[500:700] = 500
    starts[700:1300] = 700  # its neighbour: between them may be cut
    starts[2800:2999] = 2800
    assert chunk_ends(starts) == [700, 1300, 1812, 2324, 3000]


def test_no_token_sees_behind_its_chunk(bundled, short_chunks):
    starts = inputs_of(bundled, "clips of different lengths")["attention_start_ids"][0]
    ends = chunk_ends(starts)
    assert len(ends) > 5
    for end in ends:
        assert not bool((starts[end:] < end).any())


# -- the same answer


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", ["a", "b", "bundled"])
def test_chunks_give_the_scores_of_one_pass(runtime_of, short_chunks, name, talk):
    runtime = runtime_of(name)
    inputs = inputs_of(runtime, talk)
    steps, scores = exhausted(TalkCache(runtime, inputs).read())
    assert [step.index for step in steps] == list(range(len(steps)))
    assert len(steps) > 4
    assert all(step.total == len(steps) for step in steps)
    wanted = at_once(runtime, inputs)
    assert (scores - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp(min=1)


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", ["a", "b", "bundled"])
def test_in_double_precision_nothing_is_left_of_the_difference(runtime_of, short_chunks, name, talk):
    runtime = runtime_of(name, torch.float64)
    inputs = inputs_of(runtime, talk)
    inputs = {
        key: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in inputs.items()
    }
    _, scores = exhausted(TalkCache(runtime, inputs).read())
    # both are rounded to single precision in the end
    torch.testing.assert_close(scores, at_once(runtime, inputs), rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["a", "b"])
def test_where_pictures_are_read_like_words_they_are_cut_like_them(runtime_of, short_chunks, name):
    runtime = runtime_of(name)
    assert runtime.model.config.visual_attention == "causal"
    inputs = inputs_of(runtime, "picture")
    steps, _ = exhausted(TalkCache(runtime, inputs).read())
    assert len(steps) == inputs["input_ids"].shape[1] // 16


@pytest.mark.parametrize("talk", TALKS)
def test_a_small_talk_is_one_pass_bit_for_bit(runtime_of, talk):
    runtime = runtime_of("bundled")
    inputs = inputs_of(runtime, talk)
    steps, scores = exhausted(TalkCache(runtime, inputs).read())
    assert steps == []
    assert torch.equal(scores, at_once(runtime, inputs))


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", ["a", "b", "bundled"])
def test_the_answer_is_the_same(runtime_of, monkeypatch, name, talk):
    runtime = runtime_of(name)
    inputs = inputs_of(runtime, talk)
    wanted = list(decode_steps(runtime, inputs, Sampling(12), 12))
    monkeypatch.setattr("core.pipelines.prefill.CHUNK_TOKENS", 16)
    steps = list(decode_steps(runtime, inputs, Sampling(12), 12))
    assert [step for step in steps if isinstance(step, int)] == wanted
    assert isinstance(steps[0], PrefillStep)
    assert wanted


# -- one step at a time


def test_every_step_is_one_pass_and_a_stop_is_heard_between(bundled, short_chunks, monkeypatch):
    calls = []
    forward = bundled.model.forward
    monkeypatch.setattr(bundled.model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    steps = bundled.chat_steps(long_talk(), Sampling(8))
    first = next(steps)
    assert first == PrefillStep(0, first.total)
    assert calls == []
    for done in range(1, first.total):
        assert next(steps) == PrefillStep(done, first.total)
        assert len(calls) == done
    said = ""
    for done, piece in enumerate(steps, start=first.total):
        said += piece
        assert len(calls) == done
    assert said == "".join(bundled.chat(long_talk(), max_new_tokens=8))
    calls.clear()
    stopped = bundled.chat_steps(long_talk(), Sampling(8))
    next(stopped)
    next(stopped)
    stopped.close()
    assert len(calls) == 1
    assert not bundled.caches


def test_each_token_is_a_step_and_people_get_whole_characters(bundled, monkeypatch):
    tokens = bundled.processor.tokenizer("🙂 ok", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(chatting, "decode_steps", lambda *_: iter([PrefillStep(0, 1), *tokens]))
    steps = list(bundled.chat_steps(long_talk(), Sampling(8)))
    assert len(steps) == 1 + len(tokens)
    assert steps[:2] == [PrefillStep(0, 1), ""]
    assert "".join(steps[1:]) == "🙂 ok"
    pieces = list(bundled.chat(long_talk()))
    assert pieces[0] == "🙂"
    assert all(pieces)


# -- memory that is needed elsewhere


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_what_is_given_up_is_read_again_and_the_words_stay(bundled, short_chunks, temperature):
    sampling = Sampling(24, temperature, seed=3)
    wanted = [step for step in bundled.chat_steps(long_talk(), sampling) if isinstance(step, str)]
    assert len(wanted) > 4
    said = []
    for step in bundled.chat_steps(long_talk(), sampling):
        if isinstance(step, str):
            said.append(step)
        if len(said) in (0, 1, 4):
            for cache in bundled.caches:
                cache.give_up()
    assert said == wanted


def test_what_is_given_up_while_it_is_read_is_read_in_one_step(bundled, short_chunks):
    inputs = prepare(bundled, long_talk())
    _, wanted = exhausted(TalkCache(bundled, inputs).read())
    talk = TalkCache(bundled, inputs)
    reading = talk.read()
    for _ in range(3):
        next(reading)
    assert talk.num_read > 0
    talk.give_up()
    assert talk.num_read == 0
    rest, scores = exhausted(reading)
    assert rest == []
    assert torch.equal(scores, wanted), "in the same chunks"


def test_a_long_answer_that_is_given_up_is_read_in_chunks_too(runtime_of, short_chunks):
    runtime = runtime_of("a")
    inputs = inputs_of(runtime, "picture")
    talk = TalkCache(runtime, inputs)
    exhausted(talk.read())
    answer = torch.arange(40)[None] + 100
    for token in answer[0]:
        talk.append(token[None, None])
    talk.give_up()
    steps, scores = exhausted(talk.read())
    assert steps == []
    assert talk.num_read == inputs["input_ids"].shape[1] + 40
    whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], answer], dim=1)}
    for key in ("attention_mask", "attention_start_ids"):
        del whole[key]
    assert (scores - at_once(runtime, whole)).abs().max() < 1e-5


def test_others_conversations_make_room_before_anything_is_made_smaller(bundled, monkeypatch):
    asked = []
    monkeypatch.setattr(bundled, "on_out_of_memory", asked.append)
    talks = [long_talk(text=words) for words in ("Hello", "What is it? " * 2, "Who are you? " * 9)]
    alone = ["".join(bundled.chat(talk, max_new_tokens=8)) for talk in talks]
    chats = [bundled.chat_steps(talk, Sampling(8)) for talk in talks]
    said = [next(steps) + next(steps) for steps in chats]
    held = {cache.num_read: cache for cache in bundled.caches}
    assert len(held) == 3, "of different lengths"
    head = bundled.model.lm_head.forward
    failures = [1, 1]

    def fails_twice(*given):
        if failures:
            failures.pop()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return head(*given)

    monkeypatch.setattr(bundled.model.lm_head, "forward", fails_twice)
    said[0] += next(chats[0])
    assert asked == []
    assert sorted(cache.num_read for cache in held.values())[:2] == [0, 0]
    for number, steps in enumerate(chats):
        said[number] += "".join(steps)
    assert said == alone


def test_the_longest_of_the_others_goes_first_and_a_clip_may_take_it(bundled, monkeypatch):
    chats = [bundled.chat_steps(long_talk(text=words), Sampling(8)) for words in ("Hello", "Hello " * 20)]
    for steps in chats:
        next(steps)
    short, long = sorted(bundled.caches, key=lambda cache: cache.num_read)
    predict = bundled.model.predict_noise
    failures = [1]

    def fails_once(*given, **named):
        if failures:
            failures.pop()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(*given, **named)

    monkeypatch.setattr(bundled.model, "predict_noise", fails_once)
    next(bundled.text_to_video("a red circle", height=64, width=64, num_frames=1, num_inference_steps=1))
    assert failures == []
    assert long.num_read == 0
    assert short.num_read > 0


def test_a_conversation_alone_that_finds_no_memory_fails_with_a_sentence(bundled, monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(bundled.model.lm_head, "forward", fails)
        with pytest.raises(ShortMemoryError, match="reading the conversation"):
            next(bundled.chat_steps(long_talk(), Sampling(8)))
    assert list(islice(bundled.chat(long_talk()), 1))


def test_conversations_that_do_not_fit_together_all_come_to_their_ends(bundled, short_chunks, monkeypatch):
    asked = []
    monkeypatch.setattr(bundled, "on_out_of_memory", asked.append)
    talks = [long_talk(text=words) for words in ("Hello", "What is it? " * 2, "Who are you? " * 9)]
    alone = ["".join(bundled.chat(talk, max_new_tokens=8)) for talk in talks]
    room = prepare(bundled, talks[-1])["input_ids"].shape[1] + 8
    head = bundled.model.lm_head.forward

    def limited(*given):
        if sum(cache.num_read for cache in bundled.caches) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return head(*given)

    monkeypatch.setattr(bundled.model.lm_head, "forward", limited)
    chats = {number: bundled.chat_steps(talk, Sampling(8)) for number, talk in enumerate(talks)}
    said = [""] * len(talks)
    reread = 0
    for _ in range(200):  # rounds; each gives every chat at least a chunk or a token
        for number, steps in list(chats.items()):
            before = sum(cache.num_read == 0 for cache in bundled.caches)
            step = next(steps, None)
            reread += before > 0 and isinstance(step, str)
            if step is None:
                del chats[number]
            elif isinstance(step, str):
                said[number] += step
    assert chats == {}
    assert said == alone
    assert asked == [], "there was always another to make room"
    assert reread > 1
