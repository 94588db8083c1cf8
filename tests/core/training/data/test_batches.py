"""Packing: a dialogue in a packed row is the dialogue alone; only answers count; shares make up the whole."""

from __future__ import annotations

import random

import pytest
import torch

from core.layers import FullAttention
from core.scenes.questions import PLACE_KINDS, sample_dialogues
from core.training.data.dialogues import Context, dialogue_row, prompt_row
from core.training.data.noise import noise_rows
from core.training.data.packing import collate
from core.training.data.tiles import NARROWEST, TILE, draw_picture, picture_tokens
from core.training.data.tokenization import IGNORE, CachedTokenizer
from core.training.loop.processes import BatchShard
from core.training.stages.stage import Source
from tests.core.training import miniature


@pytest.fixture(scope="module")
def small():
    return miniature.model().eval(), CachedTokenizer(miniature.tokenizer())


def batch_of(tokenizer: CachedTokenizer, context: Context, rows: int, length: int = 256, seed: int = 4):
    return collate(
        [dialogue_row(tokenizer, random.Random(f"{seed}/{n}"), length, context) for n in range(rows)],
        tokenizer.pad,
    )


@pytest.mark.parametrize("context", [Context.PICTURE, Context.CLIP])
def test_packed_dialogues_equal_dialogues_alone(small, context):
    """A dialogue in a packed row gives the very logits it gives alone through the model's own entry."""
    model, tokenizer = small
    batch = batch_of(tokenizer, context, rows=2, length=320)
    ids, labels, places = batch.ids[1], batch.labels[1], batch.position_ids[1]
    media = (ids == tokenizer.image) | (ids == tokenizer.video)
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
        embeds = model.embed(ids[None], **given)
        own = FullAttention(batch.mask[1:2])
        packed = model.text_logits(model.model(embeds, places[None], own))
    assert torch.allclose(packed[0, begin:end], expected, atol=1e-4) and expected.std() > 0.01


def test_only_answers_count(small):
    _, tokenizer = small
    for context in Context:
        batch = batch_of(tokenizer, context, rows=2)
        text = tokenizer.tokenizer.decode(batch.labels[batch.labels != IGNORE])
        assert "assistant" not in text and "?" not in text and "<|im_end|>" in text
        assert batch.count == int((batch.labels != IGNORE).sum())


def test_prompts_are_answered_with_captions(small):
    _, tokenizer = small
    row = prompt_row(tokenizer, random.Random(0), 300)
    answered = tokenizer.tokenizer.decode([label for label in row.labels if label != IGNORE])
    assert answered.count("background") >= 3


def test_picture_tokens_match_the_model(small):
    model, _ = small
    for short in range(NARROWEST, TILE + 1):
        for size in ((short, TILE), (TILE, short)):
            assert picture_tokens(*size) == model.image_plan(size).num_tokens


def test_shares_are_dealt_out_and_make_up_the_batch(tmp_path):
    data = miniature.data(tmp_path)
    for source in (Source.PICTURE, Source.VIDEO):
        whole = data.training[source].sample_batch("key", 5, BatchShard(0))
        parts = [data.training[source].sample_batch("key", 5, BatchShard(0, index, 2)) for index in (0, 1)]
        assert whole.count == sum(part.count for part in parts)
        if source is Source.VIDEO:
            assert torch.equal(parts[0].latents, whole.latents[::2]) and torch.equal(
                parts[1].noise, whole.noise[1::2]
            )
            assert torch.equal(parts[1].timestep, whole.timestep[1::2])
    assert list(BatchShard(0, 1, 3).rows(8)) == [1, 4, 7]


def test_practice_rows_ask_where_two_things_stand(small):
    _, tokenizer = small
    asked, spoken = set(), ""
    for seed in range(12):
        scene, _, _ = draw_picture(random.Random(seed), pair=True)
        assert len(scene.objects) == 2
        asked |= {
            said.kind
            for dialogue in sample_dialogues(scene, random.Random(seed), False, 14, asked=PLACE_KINDS)
            for said in dialogue
        }
        spoken += miniature.tokenizer().decode(
            dialogue_row(tokenizer, random.Random(seed), 224, Context.PAIR).ids
        )
    assert asked == {"relation", "position", "neighbour", "refusal"}
    assert "left of" in spoken and "how many" not in spoken.lower()


def test_prompts_are_padded_on_the_left(small):
    _, tokenizer = small
    latents = torch.zeros(2, 1, 16, 4, 4)
    batch = noise_rows(
        tokenizer,
        [random.Random(0), random.Random(1)],
        latents,
        ["a red circle moving left", ""],
        [0.0, 0.999],
    )
    short = len(tokenizer.encode_prompt(""))
    missing = batch.ids.shape[1] - short
    assert missing > 0 and batch.attention_mask.tolist() == [
        [1] * (missing + short),
        [0] * missing + [1] * short,
    ]
    assert batch.ids[1].tolist() == [tokenizer.pad] * missing + list(tokenizer.encode_prompt(""))
    assert batch.timestep.tolist() == [0, 999]
    assert not torch.equal(batch.noise[0], batch.noise[1]) and batch.noise.std() == pytest.approx(
        1.0, abs=0.1
    )
