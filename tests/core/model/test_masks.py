"""Masks and token counts against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import PromptError
from core.model import masks
from core.model.anyres import pack_tiles, plan_grid, video_token_count

IMAGE, VIDEO = 900, 901
segments = st.lists(
    st.tuples(st.sampled_from(["text", "image", "video"]), st.integers(1, 6)), min_size=1, max_size=6
)


def sequence(parts: list[tuple[str, int]]):
    """ids, image counts, frame counts and the start indices by the rule's own words."""
    ids, starts, images, frames = [], [], [], []
    for kind, count in parts:
        ids.append(1)  # a text token keeps neighbours apart
        starts.append(len(starts))
        if kind == "text":
            for _ in range(count):
                starts.append(len(starts))
            ids += [1] * count
        elif kind == "image":
            starts += [len(starts)] * count
            ids += [IMAGE] * count
            images.append(count)
        else:
            for _ in range(2):
                starts += [len(starts)] * count
            starts.append(len(starts))
            ids += [VIDEO] * (2 * count + 1)
            frames.append([count, count, 1])
    return torch.tensor([ids]), images, frames, starts


@given(segments)
@settings(max_examples=60, deadline=None)
def test_start_ids_and_visibility(parts):
    ids, images, frames, expected = sequence(parts)
    starts = masks.start_ids(ids, IMAGE, VIDEO, images, frames)
    assert starts[0].tolist() == expected
    mask = masks.visible(starts, torch.ones_like(ids))[0, 0]
    length = ids.shape[1]
    for query in range(length):
        for key in range(length):
            together = expected[key] == expected[query] and ids[0, key] != 1
            assert bool(mask[query, key]) == (key <= query or together)


@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_generation_mask(padding, text, noise):
    real = torch.tensor([[0] * padding + [1] * (text + 1 + noise)])
    starts = masks.generation_starts(padding + text, noise, 1, torch.device("cpu"))
    mask = masks.visible(starts, real)[0, 0]
    first_noise = padding + text + 1
    for query in range(padding, len(mask)):
        seen = mask[query].nonzero().flatten().tolist()
        expected = range(padding, len(mask)) if query >= first_noise else range(padding, query + 1)
        assert seen == list(expected)
    assert masks.positions(real)[0].tolist() == [0] * padding + list(range(text + 1 + noise))


def test_counts_that_do_not_match_are_refused():
    with pytest.raises(PromptError, match="3 image tokens"):
        masks.start_ids(torch.tensor([[IMAGE] * 3]), IMAGE, VIDEO, [2], [])
    with pytest.raises(PromptError, match="stand together"):
        masks.start_ids(torch.tensor([[IMAGE, 1, IMAGE]]), IMAGE, VIDEO, [2], [])


@given(st.integers(8, 900), st.integers(8, 900), st.sampled_from([None, 1, 4, 9]), st.sampled_from([2, 3, 4]))
@settings(max_examples=80, deadline=None)
def test_planned_tokens_are_packed_tokens(height, width, most, down):
    pinpoints = [[28 * h, 28 * w] for h in range(1, down + 1) for w in range(1, 5)]
    plan = plan_grid((height, width), pinpoints, 28, 4, most)
    tiles = torch.randn(plan.rows // 4 * plan.columns // 4, 16, 3)
    packed = pack_tiles(tiles, plan, torch.zeros(3))
    assert packed.shape == (plan.num_tokens, 3)
    assert plan.height >= 1 and plan.width >= 1
    if most is not None:
        assert plan.height * plan.width <= 1.1**2 * most * 16


def test_grid_keeps_reading_order():
    plan = plan_grid((56, 56), [[56, 56]], 28, 2, None)
    tiles = torch.arange(16.0).reshape(4, 4, 1)  # four tiles of 2 x 2 patches, row by row
    packed = pack_tiles(tiles, plan, torch.tensor([-1.0]))[:, 0].tolist()
    assert packed == [0, 1, 4, 5, -1, 2, 3, 6, 7, -1, 8, 9, 12, 13, -1, 10, 11, 14, 15, -1]


def test_video_tokens():
    assert video_token_count(3, 4) == 49
