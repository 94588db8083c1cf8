"""Losses on tensors made by hand, and their agreement with the model's own entries."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional as F

from core.training.batches import (
    Medium,
    Sentences,
    TalkRow,
    collate_talks,
    draw_picture,
    noise_rows,
    normalise_frames,
    picture_tokens,
    talk_row,
)
from core.training.losses import (
    answers_right,
    diffusion_loss,
    distillation_loss,
    guided_noise_losses,
    guided_talk_losses,
    identity_loss,
    language_states,
    next_token_loss,
    noisy,
    post_warmup_losses,
    pre_warmup_counts,
    pre_warmup_losses,
    row_errors,
    teacher_velocity,
)
from core.training.tasks import Exchange
from core.training.video import EagerJointAttention, build_scheduler
from tests.training import miniature

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small():
    sentences = Sentences(miniature.tokenizer())
    rows = [talk_row(sentences, random.Random(n), 160, Medium.PICTURE) for n in range(3)]
    rngs = [random.Random(n) for n in range(3)]
    latents = torch.randn(3, 3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    texts = ["a red circle moving left", "a blue star", ""]
    noise = noise_rows(sentences, rngs, latents, texts, [0.1, 0.5, 0.9])
    return miniature.model().eval(), miniature.teachers(), collate_talks(rows, sentences.pad), noise


def test_identity_and_distillation_by_hand():
    given = torch.tensor([[1.0, -1.0], [2.0, -2.0]])  # variances 2 and 8
    assert identity_loss(given, given) == 0
    assert identity_loss(given + 1.0, given) == pytest.approx(1 / 2 + 1 / 8)
    assert distillation_loss(given, torch.zeros(2, 2) + torch.tensor([3.0, -3.0])) == pytest.approx((4 + 1) / 18)
    teacher = given.clone().requires_grad_()
    distillation_loss(given.clone().requires_grad_(), teacher).backward()
    assert teacher.grad is None, "the teacher does not learn"


def test_row_errors_by_hand():
    errors = row_errors(torch.ones(2, 1, 2), torch.tensor([[[0.0, 0.0]], [[1.0, 3.0]]]))
    assert errors.tolist() == [1.0, 2.0]


@torch.no_grad()
def test_next_token_loss_is_the_models_own(small):
    """A row with one talk: the same cross-entropy as transformers' labels give."""
    model = small[0]
    sentences = Sentences(miniature.tokenizer())
    _, frames, size = draw_picture(random.Random(3))
    row = TalkRow(media=[(normalise_frames(frames), size)])
    row.open([sentences.image] * picture_tokens(*size), group=True)
    row.add_talks([sentences.talk([Exchange("colour", "What colour is it?", "It is red.", "red")])], 200)
    batch = collate_talks([row], sentences.pad)
    given = {"pixel_values": batch.tiles[0][None], "image_sizes": torch.tensor([batch.sizes[0]])}
    expected = model(input_ids=batch.ids, labels=batch.labels, **given).loss
    assert next_token_loss(model, batch, CPU) / batch.count == pytest.approx(float(expected), abs=1e-4)


@torch.no_grad()
def test_diffusion_loss_is_the_models_own(small):
    model, _, _, batch = small
    scheduler = build_scheduler()
    mixed, target, timestep = noisy(scheduler, batch, CPU)
    predicted = model(input_ids=batch.ids, attention_mask=batch.attention_mask, latents=mixed, timestep=timestep).sample
    expected = F.mse_loss(predicted, target) * 3
    assert diffusion_loss(model, scheduler, batch, CPU) == pytest.approx(float(expected), rel=1e-4)


@torch.no_grad()
def test_a_perfect_student_has_no_distillation_loss(small):
    """The pre-decoder against a teacher that says just what it says: only the class token is missing."""
    model, teachers, batch, _ = small
    counts = pre_warmup_counts(model, batch)
    losses = pre_warmup_losses(model, teachers.vision, batch, CPU)
    assert set(losses) == set(counts) == {"identity", "distillation"} and min(counts.values()) > 20
    assert 0 < losses["distillation"] / counts["distillation"] < 0.5, "the same weights: only the class token differs"
    for layer in model.model.layers[: model.model.pre.num_hidden_layers]:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.SSG_C[2].zero_()
            norm.SSG_L[2].zero_()
    shut = pre_warmup_losses(model, teachers.vision, batch, CPU)
    assert shut["distillation"] > losses["distillation"], "with its gates shut the part computes nothing"


@torch.no_grad()
def test_guided_talks_have_both_losses(small):
    """The next token of the whole model and the distillation of its pre part; a batch with nothing to see has none of it."""
    model, teachers, batch, _ = small
    losses = guided_talk_losses(model, teachers.vision, batch, CPU)
    assert losses["next token"] == pytest.approx(float(next_token_loss(model, batch, CPU)), rel=1e-5)
    wanted = pre_warmup_losses(model, teachers.vision, batch, CPU)["distillation"]
    assert losses["distillation"] == pytest.approx(float(wanted), rel=1e-5) and wanted > 0
    sentences = Sentences(miniature.tokenizer())
    row = TalkRow()
    row.open(sentences.encode("<|im_start|>user\n"))
    row.add_talks([sentences.talk([Exchange("small_talk", "Hello!", "Hello.", "hello")])], 200)
    blind = guided_talk_losses(model, teachers.vision, collate_talks([row], sentences.pad), CPU)
    assert blind["distillation"] == 0 and blind["next token"] > 0


@torch.no_grad()
def test_guided_noise_has_both_losses(small):
    """The model's own diffusion loss, and its distance from the video prior at the same noise."""
    model, teachers, _, batch = small
    scheduler = build_scheduler()
    losses = guided_noise_losses(model, teachers.video, teachers.language, scheduler, batch, CPU)
    assert losses["diffusion"] == pytest.approx(float(diffusion_loss(model, scheduler, batch, CPU)), rel=1e-5)
    mixed, _, timestep = noisy(scheduler, batch, CPU)
    predicted = model(input_ids=batch.ids, attention_mask=batch.attention_mask, latents=mixed, timestep=timestep).sample
    wanted = teacher_velocity(teachers.video, mixed, language_states(teachers.language, batch, CPU), timestep)
    assert losses["distillation"] == pytest.approx(float(F.mse_loss(predicted, wanted) * 3), rel=1e-4)


@torch.no_grad()
def test_post_warmup_losses(small):
    model, teachers, _, batch = small
    losses = post_warmup_losses(model, teachers.video, teachers.language, build_scheduler(), batch, CPU)
    assert set(losses) == {"diffusion", "distillation", "identity"} and all(float(v) > 0 for v in losses.values())
    states = language_states(teachers.language, batch, CPU)
    assert torch.equal(states[batch.attention_mask == 0], torch.zeros_like(states[batch.attention_mask == 0]))
    mixed, _, timestep = noisy(build_scheduler(), batch, CPU)
    fused = teacher_velocity(teachers.video, mixed, states, timestep)
    teachers.video.set_attn_processor(EagerJointAttention())
    plain = teacher_velocity(teachers.video, mixed, states, timestep)
    assert torch.allclose(fused, plain, atol=1e-5) and fused.shape == batch.latents.shape


def test_answers_right_counts_whole_answers(small, monkeypatch):
    """Two answers of three and two tokens, one token of the second wrong."""
    from core.training import losses

    labels = torch.tensor([1, 2, 3, 4, 5])
    counted = torch.tensor([[False, True, True, True, False, True, True]])
    logits = F.one_hot(torch.tensor([1, 2, 3, 4, 0]), 6).float() * 20
    monkeypatch.setattr(losses, "answer_logits", lambda *_: (logits, labels, counted))
    loss, right = answers_right(small[0], small[2], CPU)
    assert right == 0.5 and loss == pytest.approx(4.0, abs=0.1)
