"""Losses on tensors made by hand, and their agreement with the model's own entries."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch.nn import functional as F

from core.scenes.templates import QAPair
from core.schedule import build_scheduler
from core.training.data.dialogues import Context, dialogue_row
from core.training.data.noise import noise_rows
from core.training.data.packing import PackedRow, collate
from core.training.data.tiles import draw_picture, normalize_frames, picture_tokens
from core.training.data.tokenization import CachedTokenizer
from core.training.priors.video import EagerJointAttention
from core.training.stages.losses import (
    add_noise,
    answer_accuracy,
    diffusion_loss,
    distillation_loss,
    distilled_diffusion_losses,
    distilled_next_token_losses,
    identity_loss,
    next_token_loss,
    per_sample_mse,
    post_warmup_losses,
    pre_warmup_counts,
    pre_warmup_losses,
)
from core.training.stages.teachers import encode_prompts, teacher_velocity
from tests.core.training import miniature

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small():
    sentences = CachedTokenizer(miniature.tokenizer())
    rows = [dialogue_row(sentences, random.Random(n), 160, Context.PICTURE) for n in range(3)]
    rngs = [random.Random(n) for n in range(3)]
    latents = torch.randn(3, 3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    texts = ["a red circle moving left", "a blue star", ""]
    noise = noise_rows(sentences, rngs, latents, texts, [0.1, 0.5, 0.9])
    return miniature.model().eval(), miniature.teachers(), collate(rows, sentences.pad), noise


def test_identity_and_distillation_by_hand():
    given = torch.tensor([[1.0, -1.0], [2.0, -2.0]])  # variances 2 and 8
    assert identity_loss(given, given) == 0
    assert identity_loss(given + 1.0, given) == pytest.approx(1 / 2 + 1 / 8)
    assert distillation_loss(given, torch.zeros(2, 2) + torch.tensor([3.0, -3.0])) == pytest.approx(
        (4 + 1) / 18
    )
    teacher = given.clone().requires_grad_()
    distillation_loss(given.clone().requires_grad_(), teacher).backward()
    assert teacher.grad is None, "the teacher does not learn"


def test_per_sample_mse_by_hand():
    errors = per_sample_mse(torch.ones(2, 1, 2), torch.tensor([[[0.0, 0.0]], [[1.0, 3.0]]]))
    assert errors.tolist() == [1.0, 2.0]


@torch.no_grad()
def test_next_token_loss_is_the_models_own(small):
    """A row with one talk: the same cross-entropy as transformers' labels give."""
    model = small[0]
    sentences = CachedTokenizer(miniature.tokenizer())
    _, frames, size = draw_picture(random.Random(3))
    row = PackedRow(media=[(normalize_frames(frames), size)])
    row.open([sentences.image] * picture_tokens(*size), group=True)
    row.add_dialogues(
        [sentences.encode_dialogue([QAPair("colour", "What colour is it?", "It is red.", "red")])], 200
    )
    batch = collate([row], sentences.pad)
    given = {"pixel_values": batch.tiles[0][None], "image_sizes": torch.tensor([batch.sizes[0]])}
    expected = model(input_ids=batch.ids, labels=batch.labels, **given).loss
    assert next_token_loss(model, batch, CPU) / batch.count == pytest.approx(float(expected), abs=1e-4)


@torch.no_grad()
def test_diffusion_loss_is_the_models_own(small):
    model, _, _, batch = small
    scheduler = build_scheduler()
    mixed, target, timestep = add_noise(scheduler, batch, CPU)
    predicted = model(
        input_ids=batch.ids, attention_mask=batch.attention_mask, latents=mixed, timestep=timestep
    ).sample
    expected = F.mse_loss(predicted, target) * 3
    assert diffusion_loss(model, scheduler, batch, CPU) == pytest.approx(float(expected), rel=1e-4)


@torch.no_grad()
def test_a_perfect_student_has_no_distillation_loss(small):
    """The pre-decoder against a teacher that says just what it says: only the class token is missing."""
    model, teachers, batch, _ = small
    counts = pre_warmup_counts(model, batch)
    losses = pre_warmup_losses(model, teachers.vision, batch, CPU)
    assert set(losses) == set(counts) == {"identity", "distillation"} and min(counts.values()) > 20
    assert 0 < losses["distillation"] / counts["distillation"] < 0.5, (
        "the same weights: only the class token differs"
    )
    model = copy.deepcopy(model)  # the others' stays as it is
    for layer in model.model.layers[: model.model.pre.num_hidden_layers]:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.SSG_C[2].zero_()
            norm.SSG_L[2].zero_()
    shut = pre_warmup_losses(model, teachers.vision, batch, CPU)
    assert shut["distillation"] > losses["distillation"], "with its gates shut the part computes nothing"


@torch.no_grad()
def test_distilled_dialogues_have_both_losses(small):
    """The whole model's next token and its pre part's distillation; nothing to see, none of the latter."""
    model, teachers, batch, _ = small
    losses = distilled_next_token_losses(model, teachers.vision, batch, CPU)
    assert losses["next_token"] == pytest.approx(float(next_token_loss(model, batch, CPU)), rel=1e-5)
    wanted = pre_warmup_losses(model, teachers.vision, batch, CPU)["distillation"]
    assert losses["distillation"] == pytest.approx(float(wanted), rel=1e-5) and wanted > 0
    sentences = CachedTokenizer(miniature.tokenizer())
    row = PackedRow()
    row.open(sentences.encode("<|im_start|>user\n"))
    row.add_dialogues([sentences.encode_dialogue([QAPair("small_talk", "Hello!", "Hello.", "hello")])], 200)
    blind = distilled_next_token_losses(model, teachers.vision, collate([row], sentences.pad), CPU)
    assert blind["distillation"] == 0 and blind["next_token"] > 0


@torch.no_grad()
def test_distilled_noise_has_both_losses(small):
    """The model's own diffusion loss, and its distance from the video prior at the same noise."""
    model, teachers, _, batch = small
    scheduler = build_scheduler()
    losses = distilled_diffusion_losses(model, teachers.video, teachers.language, scheduler, batch, CPU)
    assert losses["diffusion"] == pytest.approx(float(diffusion_loss(model, scheduler, batch, CPU)), rel=1e-5)
    mixed, _, timestep = add_noise(scheduler, batch, CPU)
    predicted = model(
        input_ids=batch.ids, attention_mask=batch.attention_mask, latents=mixed, timestep=timestep
    ).sample
    states = encode_prompts(teachers.language, batch, CPU)
    wanted = teacher_velocity(teachers.video, mixed, states, batch.attention_mask, timestep)
    assert losses["distillation"] == pytest.approx(float(F.mse_loss(predicted, wanted) * 3), rel=1e-4)


@torch.no_grad()
def test_post_warmup_losses(small):
    model, teachers, _, batch = small
    losses = post_warmup_losses(model, teachers.video, teachers.language, build_scheduler(), batch, CPU)
    assert set(losses) == {"diffusion", "distillation", "identity"} and all(
        float(v) > 0 for v in losses.values()
    )
    states = encode_prompts(teachers.language, batch, CPU)
    assert torch.equal(states[batch.attention_mask == 0], torch.zeros_like(states[batch.attention_mask == 0]))
    mixed, _, timestep = add_noise(build_scheduler(), batch, CPU)
    fused = teacher_velocity(teachers.video, mixed, states, batch.attention_mask, timestep)
    eager = copy.deepcopy(teachers.video)  # the others' stays as it is
    eager.set_attn_processor(EagerJointAttention())
    plain = teacher_velocity(eager, mixed, states, batch.attention_mask, timestep)
    assert torch.allclose(fused, plain, atol=1e-5) and fused.shape == batch.latents.shape


def test_answer_accuracy_counts_whole_answers(small, monkeypatch):
    """Two answers of three and two tokens, one token of the second wrong."""
    from core.training.stages import losses

    labels = torch.tensor([1, 2, 3, 4, 5])
    counted = torch.tensor([[False, True, True, True, False, True, True]])
    logits = F.one_hot(torch.tensor([1, 2, 3, 4, 0]), 6).float() * 20
    monkeypatch.setattr(losses, "answer_logits", lambda *_: (logits, labels, counted))
    loss, right = answer_accuracy(small[0], small[2], CPU)
    assert right == 0.5 and loss == pytest.approx(4.0, abs=0.1)
