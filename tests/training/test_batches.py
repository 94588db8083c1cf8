"""Packing: a talk in a packed row is the talk alone; only answers count; shares make up the whole."""

from __future__ import annotations

import random

import pytest
import torch

from core.layers import FullAttention
from core.training.batches import (
    IGNORE,
    NARROWEST,
    TILE,
    Medium,
    Sentences,
    collate_talks,
    draw_picture,
    noise_rows,
    picture_tokens,
    prompt_row,
    talk_row,
)
from core.training.stages import Source
from core.training.tasks import PLACE_KINDS, exchanges
from core.training.trainer import Share
from tests.training import miniature


@pytest.fixture(scope="module")
def small():
    return miniature.model().eval(), Sentences(miniature.tokenizer())


def batch_of(sentences: Sentences, medium: Medium, rows: int, length: int = 256, seed: int = 4):
    return collate_talks([talk_row(sentences, random.Random(f"{seed}/{n}"), length, medium) for n in range(rows)], sentences.pad)


@pytest.mark.parametrize("medium", [Medium.PICTURE, Medium.CLIP])
def test_packed_talks_equal_talks_alone(small, medium):
    """A talk in a packed row gives the very logits it gives alone through the model's own entry."""
    model, sentences = small
    batch = batch_of(sentences, medium, rows=2, length=320)
    ids, labels, places = batch.ids[1], batch.labels[1], batch.position_ids[1]
    media = (ids == sentences.image) | (ids == sentences.video)
    media_end = int(media.nonzero()[-1]) + 2  # the newline behind the medium
    begins = [int(n) for n in (places == media_end).nonzero() if n >= media_end]
    begin, end = begins[1], (begins[2] if len(begins) > 2 else int((labels != IGNORE).nonzero()[-1]) + 2)
    alone = torch.cat([ids[:media_end], ids[begin:end]])[None]
    tiles, size = batch.tiles[1], batch.sizes[1]
    given = {"pixel_values_videos": tiles[None]}
    if size is not None:
        given = {"pixel_values": tiles[None], "image_sizes": torch.tensor([size])}
    with torch.no_grad():
        expected = model(input_ids=alone, **given).logits[0, media_end:]
        embeds, _ = model._embed(
            ids[None], None, given.get("pixel_values"), given.get("image_sizes"), given.get("pixel_values_videos")
        )
        own = FullAttention(batch.mask[1:2])
        packed = model.lm_head(model.model.answer_states(model.model(embeds, places[None], own)))
    assert torch.allclose(packed[0, begin:end], expected, atol=1e-4) and expected.std() > 0.01


def test_only_answers_count(small):
    _, sentences = small
    for medium in Medium:
        batch = batch_of(sentences, medium, rows=2)
        text = sentences.tokenizer.decode(batch.labels[batch.labels != IGNORE])
        assert "assistant" not in text and "?" not in text and "<|im_end|>" in text
        assert batch.count == int((batch.labels != IGNORE).sum())


def test_prompts_are_answered_with_captions(small):
    _, sentences = small
    row = prompt_row(sentences, random.Random(0), 300)
    answered = sentences.tokenizer.decode([label for label in row.labels if label != IGNORE])
    assert answered.count("background") >= 3


def test_picture_tokens_match_the_model(small):
    model, _ = small
    for short in range(NARROWEST, TILE + 1):
        for size in ((short, TILE), (TILE, short)):
            assert picture_tokens(*size) == model.image_plan(size).num_tokens


def test_shares_are_dealt_out_and_make_up_the_batch(tmp_path):
    data = miniature.data(tmp_path)
    for source in (Source.PICTURE, Source.VIDEO):
        whole = data.training[source].draw("key", 5, Share(0))
        parts = [data.training[source].draw("key", 5, Share(0, index, 2)) for index in (0, 1)]
        assert whole.count == sum(part.count for part in parts)
        if source is Source.VIDEO:
            assert torch.equal(parts[0].latents, whole.latents[::2]) and torch.equal(parts[1].noise, whole.noise[1::2])
            assert torch.equal(parts[1].timestep, whole.timestep[1::2])
    assert list(Share(0, 1, 3).rows(8)) == [1, 4, 7]


def test_practice_rows_ask_where_two_things_stand(small):
    _, sentences = small
    asked, spoken = set(), ""
    for seed in range(12):
        scene, _, _ = draw_picture(random.Random(seed), pair=True)
        assert len(scene.objects) == 2
        asked |= {said.kind for talk in exchanges(scene, random.Random(seed), False, 14, asked=PLACE_KINDS) for said in talk}
        spoken += miniature.tokenizer().decode(talk_row(sentences, random.Random(seed), 224, Medium.PAIR).ids)
    assert asked == {"relation", "position", "neighbour", "refusal"}
    assert "left of" in spoken and "how many" not in spoken.lower()


def test_noise_rows_are_padded_on_the_right(small):
    _, sentences = small
    latents = torch.zeros(2, 1, 16, 4, 4)
    batch = noise_rows(sentences, [random.Random(0), random.Random(1)], latents, ["a red circle moving left", ""], [0.0, 0.999])
    assert batch.attention_mask[0].all() and not batch.attention_mask[1].all() and batch.timestep.tolist() == [0, 999]
    assert batch.ids[1][batch.attention_mask[1] == 0].eq(sentences.pad).all()
    assert not torch.equal(batch.noise[0], batch.noise[1]) and batch.noise.std() == pytest.approx(1.0, abs=0.1)
