"""Right after assembly, before any step of training: words and noise arrive where they belong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.model.contexts import generation_input
from core.model.modeling import HaploOmniForConditionalGeneration
from core.schedule import build_scheduler
from core.training.data.noise import NoiseBatch
from core.training.initialization.least_squares import fit_initial_weights
from core.training.loop.processes import BatchShard
from core.training.stages.losses import add_noise, diffusion_loss, training_input
from core.training.stages.stage import Source
from core.training.stages.teachers import encode_prompts
from tests.core.training import miniature

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return miniature.data(tmp_path_factory.mktemp("clips"))


def draw(clips, *sources: Source, key: str = "fit"):
    return [
        clips.training[source].sample_batch(f"{key}/{source.value}", 6, BatchShard(0)) for source in sources
    ]


@pytest.fixture(scope="module")
def fitted(clips):
    model = miniature.model()
    report = fit_initial_weights(
        model, miniature.teachers().language, build_scheduler(), draw(clips, *clips.training)
    )
    return model, report


@torch.no_grad()
def states(model: HaploOmniForConditionalGeneration, batch: NoiseBatch) -> dict[str, Tensor]:
    """What stands at some steps of a pass, and the noise tokens as they were embedded."""
    core, scheduler = model.model, build_scheduler()
    mixed, _, timestep = add_noise(scheduler, batch, CPU)
    given = training_input(model, scheduler, batch, CPU)
    encoded = core.forward_pre(*given)
    entered = core.enter_post(core.forward_base(encoded, given.position_ids, given.context))
    return {
        "embedded": model.embed_latents(mixed, model.embed_time(timestep))[1],
        "enter_pre": core.enter_pre(given.embeds),
        "pre": encoded,
        "enter_post": entered,
        "post": core.forward_post(entered, given.position_ids, given.context),
    }


def error(made: Tensor, wanted: Tensor) -> float:
    """Relative to the variance of what was wanted."""
    return float((made - wanted).square().mean() / (wanted - wanted.mean((0, 1))).square().mean())


def test_every_token_is_known(fitted):
    _, report = fitted
    assert report["known"] > 0.99 and report["known by the post-connector"] > 0.99
    assert report["noise kept"] > 0.85 and report["words kept"] > 0.85


def test_noise_reaches_the_post_part_as_it_was_embedded(fitted, clips):
    (batch,) = draw(clips, Source.VIDEO, key="unseen")
    (before, _), (after, noise) = (
        (seen["enter_post"][:, -seen["embedded"].shape[1] :], seen["embedded"])
        for seen in (states(miniature.model(), batch), states(fitted[0], batch))
    )
    assert error(after, noise) < 0.25 < 0.9 < error(before, noise)


def test_words_pass_the_pre_and_the_post_part_and_noise_the_first_two(fitted, clips):
    (batch,) = draw(clips, Source.STILL, key="unseen")
    seen, words = states(fitted[0], batch), batch.attention_mask.bool()
    length = words.shape[1]
    assert error(seen["pre"][:, length:], seen["enter_pre"][:, length:]) < 0.03
    assert error(seen["pre"][:, :length][words][None], seen["enter_pre"][:, :length][words][None]) < 0.03
    assert error(seen["post"][:, :length][words][None], seen["enter_post"][:, :length][words][None]) < 0.03


@torch.no_grad()
def test_answers_read_what_the_language_prior_would(clips):
    """From prompts to what lm_head reads; the parts are equally wide here, so that no word loses an axis."""
    language = miniature.teachers().language
    (batch,) = draw(clips, Source.STILL, key="unseen")
    words = batch.attention_mask.bool()
    wanted = encode_prompts(language, batch, CPU)[words]

    def read(model: HaploOmniForConditionalGeneration) -> float:
        made = model.model.text_head_states(states(model, batch)["post"][:, : words.shape[1]])[words]
        return error(made[None], wanted[None])

    model = miniature.model()
    before = read(model)
    fit_initial_weights(model, language, build_scheduler(), draw(clips, *clips.training))
    assert read(model) < 0.7 * before


def test_noise_alone_decides_the_noise_prediction(fitted, clips):
    """The vision and the language prior no longer touch noise: with other blocks the same comes out."""
    (batch,) = draw(clips, Source.VIDEO, key="unseen")
    model = miniature.model()
    model.load_state_dict(fitted[0].state_dict())
    before = states(model, batch)["enter_post"]
    with torch.no_grad():
        for block in model.model.layers[:2]:
            block.mlp.down_proj.weight.add_(0.3 * torch.randn_like(block.mlp.down_proj.weight))
    length = batch.ids.shape[1]
    after = states(model, batch)["enter_post"]
    assert error(after[:, length:], before[:, length:]) < 0.02 < error(after[:, :length], before[:, :length])


def test_the_whole_way_denoises_as_the_post_part_alone(fitted, clips):
    model, scheduler = fitted[0], build_scheduler()
    (batch,) = draw(clips, Source.VIDEO, key="unseen")

    @torch.no_grad()
    def alone() -> float:
        mixed, target, timestep = add_noise(scheduler, batch, CPU)
        time, core = model.embed_time(timestep), model.model
        text = core.enter_post(encode_prompts(miniature.teachers().language, batch, CPU))
        tail = torch.cat(model.embed_latents(mixed, time), dim=1)
        hidden = core.forward_post(*generation_input(text, tail, batch.attention_mask))
        made = model.read_noise(hidden, time, mixed.shape)
        return float((made - target).square().mean())

    with torch.no_grad():
        whole = float(diffusion_loss(model, scheduler, batch, CPU)) / batch.count
    assert whole == pytest.approx(alone(), rel=0.1)


@pytest.mark.parametrize("sources", [(Source.PICTURE, Source.CLIP), (Source.STILL, Source.VIDEO)])
def test_one_kind_of_rows_is_enough(clips, sources):
    model = miniature.model()
    batches = draw(clips, *sources)
    report = fit_initial_weights(model, miniature.teachers().language, build_scheduler(), batches)
    assert report["known"] > 0.99 and ("noise kept" in report) == (Source.VIDEO in sources)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
