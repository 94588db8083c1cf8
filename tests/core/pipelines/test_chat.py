"""The chat pipeline on the bundled model."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from core.errors import MediaError, PromptError, RequestError
from core.weights import bundled_checkpoint

MEDIA = bundled_checkpoint().parents[1] / "media"
PICTURE = {"type": "image", "path": MEDIA / "heart.png"}
CLIP = {"type": "video", "path": MEDIA / "circle_left.mp4", "num_frames": 3}


def ask(*parts, text="Describe what you see."):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def test_the_stream_is_greedy_decoding(bundled):
    pieces = list(bundled.chat(ask(PICTURE), temperature=0.0))
    inputs = bundled.processor(ask(PICTURE), [Image.open(MEDIA / "heart.png").convert("RGB")])
    tokens = bundled.model.generate(**inputs, max_new_tokens=64, do_sample=False)
    whole = bundled.processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert len(pieces) > 2
    assert "".join(pieces) == whole


def test_many_media_and_turns(bundled):
    first = ask(PICTURE, CLIP, PICTURE)
    answer = "".join(bundled.chat(first))
    second = [
        *first,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "What colour is it?"},
    ]
    assert answer.strip() and "".join(bundled.chat(second)).strip()


def test_media_change_the_answer_scores(bundled):
    def scores(picture):
        inputs = bundled.processor(ask(PICTURE), [picture])
        with torch.no_grad():
            return bundled.model(**inputs, logits_to_keep=1).logits

    red, blue = (Image.new("RGB", (90, 90), colour) for colour in ("red", "blue"))
    assert not torch.allclose(scores(red), scores(blue), atol=1e-2)


def test_sampling_repeats_with_a_seed(bundled):
    settings = {
        "temperature": 5.0,
        "top_p": 1.0,
        "top_k": 50,
        "repetition_penalty": 1.1,
        "max_new_tokens": 24,
    }
    same = {"".join(bundled.chat(ask(PICTURE), seed=5, **settings)) for _ in range(2)}
    others = {"".join(bundled.chat(ask(PICTURE), seed=seed, **settings)) for seed in range(6)}
    assert len(same) == 1 and len(others) > 1


def test_length_limit(bundled):
    assert "".join(bundled.chat(ask(PICTURE), max_new_tokens=1)).count(" ") == 0


def test_a_closed_stream_stops(bundled, monkeypatch):
    calls = []
    forward = bundled.model.forward
    monkeypatch.setattr(bundled.model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    stream = bundled.chat(ask(PICTURE))
    next(stream)
    stream.close()
    count = len(calls)
    assert list(stream) == [] and len(calls) == count <= 3


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "end with a message of the user"),
        ([{"role": "assistant", "content": "x"}], "end with a message of the user"),
        (ask(PICTURE, text="  "), "no text"),
        (ask(text="red " * 2000), r"takes \d+ tokens but the model's context holds 1024"),
        (ask({"type": "image"}), "needs a 'path' or 'image'"),
        (ask(*[PICTURE] * 17), "at most 16"),
    ],
)
def test_bad_conversations(bundled, messages, expected):
    with pytest.raises(PromptError, match=expected):
        next(bundled.chat(messages))
    assert "".join(bundled.chat(ask(PICTURE))).strip(), "the next request works"


def test_a_file_that_an_earlier_message_needs(bundled, tmp_path):
    gone = {"type": "image", "path": tmp_path / "gone.png"}
    later = [
        *ask(PICTURE),
        {"role": "assistant", "content": "a heart"},
        *ask(gone),
        {"role": "assistant", "content": "a star"},
    ]
    with pytest.raises(
        MediaError, match=r"'gone.png' does not exist, though message 2 of this .*; undo back to that message"
    ):
        next(bundled.chat([*later, *ask()]))
    with pytest.raises(MediaError, match=r"'gone.png' does not exist; please upload it again"):
        next(bundled.chat([*ask(PICTURE), {"role": "assistant", "content": "a heart"}, *ask(gone)]))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": 3},
        {"type": "video", "video": Image.new("RGB", (9, 9))},
        {**CLIP, "num_frames": "many"},
        {**CLIP, "start_s": "0:05"},
        {**CLIP, "end_s": []},
    ],
)
def test_parts_of_a_wrong_kind(bundled, part):
    with pytest.raises(PromptError, match=r"must be"):
        next(bundled.chat(ask(part)))


def test_bad_sampling(bundled):
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}, {"repetition_penalty": 0}):
        with pytest.raises(RequestError, match=next(iter(wrong))):
            next(bundled.chat(ask(PICTURE), **wrong))
