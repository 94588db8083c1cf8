"""Pieces of text are whole characters and add up to the whole text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from core.pipelines.detokenizer import IncrementalDetokenizer
from core.weights import bundled_checkpoint

TOKENIZER = PreTrainedTokenizerFast.from_pretrained(bundled_checkpoint())
WHOLE = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}


def pieces(ids):
    stream = IncrementalDetokenizer(TOKENIZER)
    return [*map(stream.push, ids), stream.finish()]


@given(st.text(max_size=40))
def test_text_comes_out_as_it_went_in(text):
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True).input_ids
    made = pieces(ids)
    assert "".join(made) == TOKENIZER.decode(ids, **WHOLE)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in made), "no half characters"


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=30))
def test_any_tokens_come_out_whole(ids):
    assert "".join(pieces(ids)) == TOKENIZER.decode(ids, **WHOLE)


def test_half_a_character_at_the_end_is_said():
    ids = TOKENIZER("😀", add_special_tokens=False).input_ids
    assert len(ids) > 1
    assert pieces(ids[:-1]) == [""] * (len(ids) - 1) + ["\ufffd"]


def test_special_tokens_say_nothing():
    assert "".join(pieces([TOKENIZER.convert_tokens_to_ids("<|im_end|>")])) == ""
