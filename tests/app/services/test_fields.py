"""What is typed or sent becomes a usable value, or is refused in a sentence."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from app.services.chat import chat_sampling, clip_settings
from core.errors import HaploOmniError
from core.text import whole_text

ODD = [
    None,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "64",
    "many",
    -1,
    0,
    10**30,
    10**5000,
    1e308,
    7.5,
    True,
    [],
    {},
    "\ud83d",
    b"x",
]
VALUES = st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=5)


@given(st.tuples(*[VALUES] * 6))
def test_answer_settings_are_usable_or_refused_in_a_sentence(answer):
    try:
        made = asdict(chat_sampling(*answer))
    except HaploOmniError as error:
        str(error).encode()
        assert len(str(error)) < 200
    else:
        assert made["max_new_tokens"] >= 1
        assert all(math.isfinite(value) for value in made.values() if value is not None)


@given(VALUES, VALUES, VALUES)
def test_clip_settings_are_usable_or_refused_in_a_sentence(frames, start, end):
    try:
        made = clip_settings(frames, start, end)
    except HaploOmniError as error:
        str(error).encode()
        assert len(str(error)) < 200
    else:
        assert 1 <= made.num_frames <= 16
        assert made.start_s >= 0


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_text_becomes_whole(text):
    whole = whole_text(text)
    whole.encode()
    assert whole_text(whole) == whole
    if not any(unicodedata.category(letter) in ("Cs", "Cc") for letter in text):
        assert whole == text


def test_halves_that_belong_together_are_joined():
    assert whole_text("\ud83d\ude00 \ud83d?") == "😀 \ufffd?"
