"""Alone, padded or beside any other in its batch, an item has the same states, losses and predictions.

Every way of computing several items at once has a line in one of two tables.
``EACH`` names those that give something for every item, ``TOTAL`` those that add items up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from core.pipelines.guidance import CachedPromptDenoiser, Guidance, ReferenceDenoiser
from core.schedule import build_scheduler
from core.training.data.dialogues import Context, dialogue_row, prompt_row
from core.training.data.noise import NoiseBatch, noise_rows
from core.training.data.packing import PackedBatch, collate
from core.training.data.tokenization import IGNORE, CachedTokenizer
from core.training.initialization.least_squares import words_used
from core.training.initialization.prescaling import measure_amplitudes, wanted_amplitudes
from core.training.priors.language import LanguagePrior
from core.training.priors.video import VideoPrior
from core.training.priors.vision import VisionPrior, patch_batch
from core.training.stages.losses import (
    add_noise,
    answer_logits,
    diffusion_loss,
    distilled_diffusion_losses,
    distilled_next_token_losses,
    next_token_loss,
    post_warmup_losses,
    pre_warmup_counts,
    pre_warmup_losses,
)
from core.training.stages.teachers import encode_prompts, teacher_velocity
from tests.core.training import miniature

CPU = torch.device("cpu")
TOLERANCE = 1e-5  # of the largest number, in float32
EXAMPLES = settings(max_examples=12, deadline=None)


@dataclass(frozen=True)
class Prompt:
    """A clip to denoise under a prompt of so many words."""

    words: int
    seed: int


@dataclass(frozen=True)
class Talk:
    """A talk about a medium, in at most so many tokens; None: prompts to answer."""

    medium: Context | None
    length: int
    seed: int


SEEDS = st.integers(0, 10_000)
PROMPTS = st.builds(
    Prompt, st.integers(0, 50), SEEDS
)  # the video prior of the tests keeps places for 40 tokens
TALKS = st.builds(
    Talk, st.sampled_from((Context.PICTURE, Context.PAIR, Context.CLIP)), st.integers(260, 330), SEEDS
)
WORDS = st.builds(Talk, st.sampled_from((Context.WORDS, None)), st.integers(150, 300), SEEDS)


@lru_cache(maxsize=1)
def small():
    """Model, priors and sentences; nothing here changes them."""
    return miniature.model().eval(), miniature.teachers(), CachedTokenizer(miniature.tokenizer())


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(("red", "star", "moving", "left", "big")) for _ in range(count))


def noise_batch(items: Sequence[Prompt], padding: int = 0) -> NoiseBatch:
    """Prompts with their own latents, noise and timesteps, and some tokens of padding more than they need."""
    sentences = small()[2]
    rngs = [random.Random(item.seed) for item in items]
    texts = [_words(rng, item.words) for rng, item in zip(rngs, items, strict=True)]
    latents = torch.stack(
        [torch.randn(3, 16, 4, 4, generator=torch.Generator().manual_seed(i.seed)) for i in items]
    )
    batch = noise_rows(sentences, rngs, latents, texts, [rng.random() for rng in rngs])
    ids = F.pad(batch.ids, (padding, 0), value=sentences.pad)
    return replace(batch, ids=ids, attention_mask=F.pad(batch.attention_mask, (padding, 0)))


def talk_batch(items: Sequence[Talk], padding: int = 0) -> PackedBatch:
    """Talks, and so many tokens of padding more than they need."""
    sentences = small()[2]
    rows = []
    for item in items:
        rng = random.Random(item.seed)
        if item.medium is None:
            rows.append(prompt_row(sentences, rng, item.length))
        else:
            rows.append(dialogue_row(sentences, rng, item.length, item.medium))
    batch = collate(rows, sentences.pad)
    itself = torch.eye(batch.ids.shape[1] + padding, dtype=torch.bool)
    return replace(
        batch,
        ids=F.pad(batch.ids, (0, padding), value=sentences.pad),
        attention_mask=F.pad(batch.attention_mask, (0, padding)),
        labels=F.pad(batch.labels, (0, padding), value=IGNORE),
        position_ids=F.pad(batch.position_ids, (0, padding)),
        mask=F.pad(batch.mask, (0, padding, 0, padding)) | itself,
    )


# -- what is computed for every item


def states_of_prompts(batch: NoiseBatch) -> list[Tensor]:
    states = encode_prompts(small()[1].language, batch, CPU)
    assert not states[batch.attention_mask == 0].any(), "padding has no states"
    return [row[real.bool()] for row, real in zip(states, batch.attention_mask, strict=True)]


def predictions_of_the_video_prior(batch: NoiseBatch) -> list[Tensor]:
    mixed, _, timestep = add_noise(build_scheduler(), batch, CPU)
    states = encode_prompts(small()[1].language, batch, CPU)
    return list(teacher_velocity(small()[1].video, mixed, states, batch.attention_mask, timestep))


def predictions_of_the_model(batch: NoiseBatch) -> list[Tensor]:
    mixed, _, timestep = add_noise(build_scheduler(), batch, CPU)
    words = {"input_ids": batch.ids, "attention_mask": batch.attention_mask}
    return list(small()[0](**words, latents=mixed, timestep=timestep).sample)


def predictions_from_prefixes(batch: NoiseBatch) -> list[Tensor]:
    model = small()[0]
    mixed, _, timestep = add_noise(build_scheduler(), batch, CPU)
    prefix = model(input_ids=batch.ids, attention_mask=batch.attention_mask, return_prefix=True).prefix
    return list(model(latents=mixed, timestep=timestep, prefix=prefix).sample)


def scores_of_the_model(batch: NoiseBatch) -> list[Tensor]:
    logits = small()[0](input_ids=batch.ids, attention_mask=batch.attention_mask).logits
    return [row[real.bool()] for row, real in zip(logits, batch.attention_mask, strict=True)]


def generated_tokens(batch: NoiseBatch) -> list[Tensor]:
    given = {"input_ids": batch.ids, "attention_mask": batch.attention_mask}
    made = small()[0].generate(
        **given,
        max_new_tokens=4,
        min_new_tokens=4,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return list(torch.stack(made.logits, dim=1))


def scores_of_answers(batch: PackedBatch) -> list[Tensor]:
    logits, _, counted = answer_logits(small()[0], batch, CPU)
    return list(logits.split(counted.sum(1).tolist()))


EACH: dict[str, tuple[Callable, Callable, st.SearchStrategy]] = {
    "the language prior's states of prompts": (states_of_prompts, noise_batch, PROMPTS),
    "the video prior's predictions": (predictions_of_the_video_prior, noise_batch, PROMPTS),
    "the model's predictions": (predictions_of_the_model, noise_batch, PROMPTS),
    "the model's predictions from prefixes": (predictions_from_prefixes, noise_batch, PROMPTS),
    "the model's scores": (scores_of_the_model, noise_batch, PROMPTS),
    "the model's scores while it generates": (generated_tokens, noise_batch, PROMPTS),
    "the scores of answers in training": (scores_of_answers, talk_batch, TALKS),
}


# -- what is added up


def losses_of_the_video_prior(batch: NoiseBatch) -> dict[str, Tensor]:
    teachers = small()[1]
    task = VideoPrior(teachers.language, None, None, 1, 1)
    task.video = teachers.video
    return task({"video": batch})


def losses_of_the_language_prior(batch: PackedBatch) -> dict[str, Tensor]:
    task = LanguagePrior(miniature.tokenizer())
    task.language = small()[1].language
    return task({"dialogue": batch})


TOTAL: dict[str, tuple[Callable, Callable, st.SearchStrategy]] = {
    "video prior": (losses_of_the_video_prior, noise_batch, PROMPTS),
    "diffusion": (
        lambda b: {"": diffusion_loss(small()[0], build_scheduler(), b, CPU)},
        noise_batch,
        PROMPTS,
    ),
    "distilled noise": (
        lambda b: distilled_diffusion_losses(
            small()[0], small()[1].video, small()[1].language, build_scheduler(), b, CPU
        ),
        noise_batch,
        PROMPTS,
    ),
    "warmup of the post part": (
        lambda b: post_warmup_losses(
            small()[0], small()[1].video, small()[1].language, build_scheduler(), b, CPU
        ),
        noise_batch,
        PROMPTS,
    ),
    "language prior": (losses_of_the_language_prior, talk_batch, WORDS),
    "next token": (lambda b: {"": next_token_loss(small()[0], b, CPU)}, talk_batch, TALKS),
    "distilled dialogues": (
        lambda b: distilled_next_token_losses(small()[0], small()[1].vision, b, CPU),
        talk_batch,
        TALKS,
    ),
    "warmup of the pre part": (
        lambda b: pre_warmup_losses(small()[0], small()[1].vision, b, CPU),
        talk_batch,
        TALKS,
    ),
    "counts": (
        lambda b: {
            k: torch.tensor(float(v))
            for k, v in {**pre_warmup_counts(small()[0], b), "answers": b.count}.items()
        },
        talk_batch,
        TALKS,
    ),
}


# -- what is measured over a whole batch: padding adds nothing to it


def amplitudes(batch: PackedBatch | NoiseBatch) -> dict[str, float]:
    model, priors, _ = small()
    table = measure_amplitudes(model, build_scheduler(), [batch], CPU)
    wanted = wanted_amplitudes(priors.language, priors.video, [batch], CPU)
    return wanted | {
        f"{side}/{kind}": value for side, kinds in table.items() for kind, value in kinds.items()
    }


def words_of(batch: PackedBatch | NoiseBatch) -> dict[str, float]:
    return {"sum": float(words_used([batch]).sum()), "count": float(len(words_used([batch])))}


MEASURED: dict[str, tuple[Callable, Callable, st.SearchStrategy]] = {
    "amplitudes of prompts": (amplitudes, noise_batch, PROMPTS),
    "amplitudes of talks": (amplitudes, talk_batch, TALKS),
    "words of prompts": (words_of, noise_batch, PROMPTS),
    "words of talks": (words_of, talk_batch, TALKS),
}


def assert_same(made: Tensor, alone: Tensor, what: str) -> None:
    assert made.shape == alone.shape and torch.isfinite(made).all(), what
    error = float((made - alone).abs().max()) if made.numel() else 0.0
    assert error <= TOLERANCE * max(1e-6, float(alone.abs().max())), f"{what}: {error}"


@pytest.mark.parametrize("path", EACH)
@EXAMPLES
@given(data=st.data())
@torch.no_grad()
def test_an_item_is_what_it_is_alone(path, data):
    compute, build, items = EACH[path]
    item, others = data.draw(items), data.draw(st.lists(items, min_size=1, max_size=2))
    alone = compute(build([item]))[0]
    assert alone.std() > 0, "something is compared"
    assert_same(compute(build([item], data.draw(st.integers(1, 40))))[0], alone, "padded")
    assert_same(compute(build([item, *others]))[0], alone, "before others")
    assert_same(compute(build([*others, item]))[-1], alone, "behind others")


@pytest.mark.parametrize("path", TOTAL)
@EXAMPLES
@given(data=st.data())
@torch.no_grad()
def test_a_batch_is_the_sum_of_its_items(path, data):
    compute, build, items = TOTAL[path]
    chosen = data.draw(st.lists(items, min_size=2, max_size=3))
    alone = [compute(build([item])) for item in chosen]
    together, padded = compute(build(chosen)), compute(build(chosen, data.draw(st.integers(1, 40))))
    for name in alone[0]:
        total = torch.stack([torch.as_tensor(losses[name]) for losses in alone]).double().sum()
        assert total > 0, "something is compared"
        assert float(together[name]) == pytest.approx(float(total), rel=TOLERANCE), name
        assert float(padded[name]) == pytest.approx(float(total), rel=TOLERANCE), name


@pytest.mark.parametrize("path", MEASURED)
@EXAMPLES
@given(data=st.data())
@torch.no_grad()
def test_padding_is_not_measured(path, data):
    compute, build, items = MEASURED[path]
    chosen = data.draw(st.lists(items, min_size=1, max_size=2))
    bare = compute(build(chosen))
    assert compute(build(chosen, data.draw(st.integers(1, 40)))) == pytest.approx(
        bare, rel=TOLERANCE, abs=2e-5
    )
    assert min(bare.values()) > 0, "something is compared"


@EXAMPLES
@given(st.lists(SEEDS, min_size=2, max_size=4))
@torch.no_grad()
def test_a_batch_of_sights_is_the_sum_of_its_items(seeds):
    """The vision prior's loss, whatever is left out of a row's labels."""
    task = sights()
    batches = [
        patch_batch([random.Random(seed) for seed in group]) for group in (seeds, *([seed] for seed in seeds))
    ]
    together, *alone = [task({"patches": batch}) for batch in batches]
    for name in together:
        assert float(together[name]) == pytest.approx(
            sum(float(losses[name]) for losses in alone), rel=TOLERANCE
        ), name
    assert together["patches"] > 0


@lru_cache(maxsize=1)
def sights() -> VisionPrior:
    return VisionPrior(rows=1).eval()


@EXAMPLES
@given(PROMPTS, PROMPTS, st.integers(0, 999))
def test_the_fast_denoiser_is_the_plain_one(negative, positive, timestep):
    """Whatever the lengths of the two prompts; and without guidance the negative prompt does not matter."""
    model, pad = small()[0], small()[2].pad
    batch = noise_batch([negative, positive])
    prompts = [row[real.bool()].tolist() for row, real in zip(batch.ids, batch.attention_mask, strict=True)]
    latents = batch.noise[:1]
    plain = ReferenceDenoiser(model, prompts, 6.0, pad).predict(latents, timestep)
    fast = CachedPromptDenoiser(model, prompts, 6.0)
    for guidance in Guidance:
        assert_same(fast.predict(latents, timestep, guidance), plain, guidance.value)
    alone = ReferenceDenoiser(model, prompts[1:], 1.0, pad).predict(latents, timestep)
    assert_same(
        ReferenceDenoiser(model, prompts, 1.0, pad).predict(latents, timestep),
        alone,
        "beside the negative prompt",
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [(28, 28), (56, 112), (168, 56)])
def test_a_picture_beside_one_of_more_tiles(reference_model, reference_processor, size):
    """Pictures of few tiles are padded with empty ones; nothing of these reaches the answer."""
    from PIL import Image

    model, processor = reference_model("a"), reference_processor("a")
    side = processor.image_processor.size["height"]
    pictures = [Image.effect_noise(shape, 60).convert("RGB") for shape in (size, (2 * side, 2 * side))]
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    alone = processor(asked, images=pictures[:1])
    both = processor([*asked, {"role": "assistant", "content": "b"}, *asked], images=pictures)
    length = int(alone["input_ids"].shape[1]) - len(
        processor.tokenizer("<|im_start|>assistant\n")["input_ids"]
    )
    scores = [model(**given).logits[0, :length] for given in (alone, both)]
    assert both["pixel_values"].shape[1] > alone["pixel_values"].shape[1], "there is something to pad"
    assert_same(scores[1], scores[0], "beside a larger picture")
