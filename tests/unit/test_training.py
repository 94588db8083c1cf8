"""Scenes, tasks, packing, losses and resuming."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from core.evaluation.answers import is_right
from core.evaluation.clips import evaluate_judge
from core.layers import FullAttention
from core.training.batches import IGNORE, Sentences, noise_batch, picture_tokens, talk_batch
from core.training.losses import diffusion_loss, next_token_loss
from core.training.run import Run, warmup_cosine
from core.training.scenes import COLOURS, MOTIONS, SHAPES, Scene, SceneObject, combinations, render, sample_scene
from core.training.tasks import caption, exchanges, prompt, yes_no
from core.training.trainer import build_model, build_scheduler
from core.training.vision import GRID, VisionProbe, patch_labels, sight_batch


def test_the_split_is_even_and_disjoint():
    seen, held = combinations(False), combinations(True)
    assert not set(seen) & set(held) and len(seen) + len(held) == len(COLOURS) * len(SHAPES) * len(MOTIONS)
    for place, names in enumerate((COLOURS, SHAPES, MOTIONS)):
        assert {c[place] for c in seen} == {c[place] for c in held} == set(names)
    rng = random.Random(0)
    assert all((o.colour, o.shape, o.motion) in set(seen) for _ in range(200) for o in sample_scene(rng).objects)


def test_scenes_stay_inside_and_repeat():
    for seed in range(40):
        scene = sample_scene(random.Random(seed), count=1 + seed % 4, motion="still" if seed % 4 else None)
        assert scene == sample_scene(random.Random(seed), count=1 + seed % 4, motion="still" if seed % 4 else None)
        frames = render(scene, 96, 96, 9)
        border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
        assert (
            np.abs(border.astype(int) - np.asarray(scene.background_rgb)).max() <= 12
        )  # at most the rim of an anti-aliased edge
        assert len(scene.objects) == 1 + seed % 4


def test_the_judge_is_right_on_true_clips():
    for kind, (right, total) in evaluate_judge(42, 96, 9).items():
        assert right / total >= 0.95, kind


def test_answers_follow_the_scene():
    for seed in range(60):
        rng = random.Random(seed)
        scene = sample_scene(rng, count=1 + seed % 3, motion=None if seed % 3 == 0 else "still")
        clip = seed % 3 == 0
        for talk in exchanges(scene, rng, clip, 4):
            for exchange in talk:
                assert is_right(exchange.kind.replace("follow_", ""), exchange.key, exchange.answer), exchange
        truth = yes_no(scene, rng, clip, wanted=True)
        assert truth.answer == "Yes." and yes_no(scene, rng, clip, wanted=False).answer == "No."
        assert scene.objects[0].colour in caption(scene, clip) and scene.objects[0].shape in prompt(scene, rng, clip)


@pytest.fixture(scope="module")
def small(bundled):
    return bundled.model, Sentences(bundled.processor.tokenizer)


@pytest.mark.parametrize("clip", [False, True])
def test_packed_talks_equal_talks_alone(small, clip):
    """A talk in a packed row gives the very logits it gives alone through the model's own entry."""
    model, sentences = small
    batch = talk_batch(sentences, random.Random(4), rows=2, length=256, clip=clip)
    context = FullAttention(batch.mask)
    core = model.model
    row = 1 if batch.sizes[1:] else 0
    ids, labels = batch.ids[row], batch.labels[row]
    media = (ids == sentences.image) | (ids == sentences.video)
    assert media.any()
    media_end = int(media.nonzero()[-1]) + 2  # the newline token behind the medium
    second_start = int((batch.position_ids[row, media_end + 1 :] == media_end).nonzero()[0]) + media_end + 1
    third = (batch.position_ids[row, second_start + 1 :] == media_end).nonzero()
    second_end = int(third[0]) + second_start + 1 if len(third) else int((labels != IGNORE).nonzero()[-1]) + 2
    alone = torch.cat([ids[:media_end], ids[second_start:second_end]])[None]
    given = {"pixel_values_videos": batch.tiles[row][None]} if clip else {
        "pixel_values": batch.tiles[row][None], "image_sizes": torch.tensor([batch.sizes[row]])
    }  # fmt: skip
    with torch.no_grad():
        expected = model(input_ids=alone, **given).logits[0, media_end:]
        embeds, _ = model._embed(
            ids[None], None, given.get("pixel_values"), given.get("image_sizes"), given.get("pixel_values_videos")
        )
        own = FullAttention(context.mask[row : row + 1])
        packed = model.lm_head(core.answer_states(core(embeds, batch.position_ids[row : row + 1], own)))
    assert torch.allclose(packed[0, second_start:second_end], expected, atol=1e-3)


def test_losses_on_a_fresh_model(small):
    _, sentences = small
    model = build_model(sentences.tokenizer, seed=0)
    device = torch.device("cpu")
    batch = talk_batch(sentences, random.Random(0), rows=2, length=128, clip=False)
    loss = next_token_loss(model, batch, device)
    assert abs(loss.item() - np.log(len(sentences.tokenizer))) < 1.0, "a fresh model knows nothing"
    scene = sample_scene(random.Random(0))
    latents = torch.randn(4, 3, 16, 4, 4)
    noise = noise_batch(sentences, random.Random(0), latents, [scene] * 4, rows=4, text_length=32, clip=True)
    mse = diffusion_loss(model, build_scheduler(), noise, torch.Generator().manual_seed(0), device)
    assert 0.5 < mse.item() < 2.0, "predicting nothing misses a velocity of unit variance"
    (loss + mse).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_patches_are_labelled_by_what_covers_them():
    scene = Scene(
        "black", (SceneObject("red", "square", 0.25, 0.25, 0.2), SceneObject("blue", "circle", 0.75, 0.75, 0.2)), (12, 12, 12)
    )
    colour, shape = (labels.reshape(GRID, GRID) for labels in patch_labels(scene, 0.5))
    names = list(COLOURS)
    assert colour[1, 1] == names.index("red") + 1 and shape[1, 1] == SHAPES.index("square") + 1
    assert colour[4, 4] == names.index("blue") + 1 and shape[4, 4] == SHAPES.index("circle") + 1
    assert colour[0, 5] == colour[5, 0] == shape[0, 5] == shape[5, 0] == 0
    assert set(np.unique(colour)) == {0, names.index("red") + 1, names.index("blue") + 1}


def test_the_probe_teaches_the_pre_decoder_alone(small):
    model = build_model(small[1].tokenizer, seed=0)
    probe = VisionProbe(model.model.pre.hidden_size)
    batch = sight_batch(random.Random(0), rows=8)
    loss, right = probe(model.model, batch)
    loss.backward()
    taught = {
        name.split(".")[2] for name, p in model.named_parameters() if name.startswith("model.layers.") and p.grad is not None
    }
    assert taught == {str(layer) for layer in range(model.model.pre.num_hidden_layers)} and 0.0 <= right <= 1.0
    assert model.lm_head.weight.grad is None and model.model.patch_embed.proj.weight.grad is not None
    parameters = [*probe.parameters(), *(p for p in model.parameters() if p.grad is not None)]
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    for _ in range(12):
        optimizer.zero_grad()
        probe(model.model, batch)[0].backward()
        optimizer.step()
    assert probe(model.model, batch)[0] < 0.8 * loss


def test_only_answers_count(small):
    _, sentences = small
    batch = talk_batch(sentences, random.Random(1), rows=1, length=160, clip=False)
    counted = batch.labels[0][batch.labels[0] != IGNORE].tolist()
    text = sentences.tokenizer.decode(counted)
    assert "assistant" not in text and "?" not in text and "<|im_end|>" in text


def test_picture_tokens_match_the_model(small):
    model, _ = small
    for size in ((84, 84), (63, 84), (84, 63), (48, 84), (84, 56)):
        assert picture_tokens(*size) == model.image_plan(size).num_tokens


def train_a_little(folder, stop_at: int | None, steps: int = 6) -> torch.Tensor:
    """A run on a toy problem, cut off at a step."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    run = Run(folder, {"model": model, "optimizer": optimizer}, save_every_s=0.0)
    for step, _ in run.steps(steps, "toy"):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        run.report(loss=1.0)
        if step == stop_at:
            raise KeyboardInterrupt
    return model.weight.detach().clone()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = train_a_little(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        train_a_little(tmp_path / "cut", 3)
    assert torch.equal(train_a_little(tmp_path / "cut", None), whole)
    assert len((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()) == 6


def test_learning_rate():
    factors = [warmup_cosine(step, 100, 10) for step in range(100)]
    assert factors[0] == 0.1 and max(factors) == 1.0 and factors[-1] < 0.03
