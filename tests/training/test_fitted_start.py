"""Right after assembly, before any step of training: words and noise arrive where they belong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.batches import NoiseBatch
from core.training.fitted_start import fit_start
from core.training.losses import _generation_context, diffusion_loss, language_states, noisy
from core.training.stages import Source
from core.training.trainer import Share
from core.training.video import build_scheduler
from tests.training import miniature

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return miniature.data(tmp_path_factory.mktemp("clips"))


def draw(clips, *sources: Source, key: str = "fit"):
    return [clips.training[source].draw(f"{key}/{source.value}", 6, Share(0)) for source in sources]


@pytest.fixture(scope="module")
def fitted(clips):
    model = miniature.model()
    report = fit_start(model, miniature.teachers().language, build_scheduler(), draw(clips, *clips.training))
    return model, report


@torch.no_grad()
def states(model: HaploOmniForConditionalGeneration, batch: NoiseBatch) -> dict[str, Tensor]:
    """What leaves some modules for a batch, and the noise tokens as they were embedded."""
    made: dict[str, Tensor] = {}
    watched = {
        "embedded": model.patch_embed_cogvideo,
        "pre_norm": model.model.pre_norm,
        "pre": model.model.layers[model.model.pre.num_hidden_layers - 1],
        "base": model.model.norm,
        "post_connector": model.model.post_connector,
        "post": model.model.layers[-1],
    }
    hooks = [m.register_forward_hook(lambda _, __, out, name=name: made.update({name: out})) for name, m in watched.items()]
    diffusion_loss(model, build_scheduler(), batch, CPU)
    for hook in hooks:
        hook.remove()
    return made


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
        (seen["post_connector"][:, -seen["embedded"].shape[1] :], seen["embedded"])
        for seen in (states(miniature.model(), batch), states(fitted[0], batch))
    )
    assert error(after, noise) < 0.25 < 0.9 < error(before, noise)


def test_words_pass_the_pre_and_the_post_part_and_noise_the_first_two(fitted, clips):
    (batch,) = draw(clips, Source.STILL, key="unseen")
    seen, words = states(fitted[0], batch), batch.attention_mask.bool()
    length = words.shape[1]
    assert error(seen["pre"][:, length:], seen["pre_norm"][:, length:]) < 0.03
    assert error(seen["pre"][:, :length][words][None], seen["pre_norm"][:, :length][words][None]) < 0.03
    assert error(seen["post"][:, :length][words][None], seen["post_connector"][:, :length][words][None]) < 0.03


@torch.no_grad()
def test_answers_read_what_the_language_prior_would(clips):
    """From prompts to what lm_head reads; the base part's width is that of the pre part here, so that no word loses an axis."""
    language = miniature.teachers().language
    (batch,) = draw(clips, Source.STILL, key="unseen")
    words = batch.attention_mask.bool()
    wanted = language_states(language, batch, CPU)[words]

    def read(model: HaploOmniForConditionalGeneration) -> float:
        made = model.model.answer_states(states(model, batch)["post"][:, : words.shape[1]])[words]
        return error(made[None], wanted[None])

    model = miniature.model()
    before = read(model)
    fit_start(model, language, build_scheduler(), draw(clips, *clips.training))
    assert read(model) < 0.7 * before


def test_noise_alone_decides_the_noise_prediction(fitted, clips):
    """The vision and the language prior no longer touch noise: with other blocks the same comes out."""
    (batch,) = draw(clips, Source.VIDEO, key="unseen")
    model = miniature.model()
    model.load_state_dict(fitted[0].state_dict())
    before = states(model, batch)["post_connector"]
    with torch.no_grad():
        for block in model.model.layers[:2]:
            block.mlp.down_proj.weight.add_(0.3 * torch.randn_like(block.mlp.down_proj.weight))
    length = batch.ids.shape[1]
    after = states(model, batch)["post_connector"]
    assert error(after[:, length:], before[:, length:]) < 0.02 < error(after[:, :length], before[:, :length])


def test_the_whole_way_denoises_as_the_post_part_alone(fitted, clips):
    model, scheduler = fitted[0], build_scheduler()
    (batch,) = draw(clips, Source.VIDEO, key="unseen")

    @torch.no_grad()
    def alone() -> float:
        mixed, target, timestep = noisy(scheduler, batch, CPU)
        time, core = model.embed_time(timestep), model.model
        text = core.post_connector(language_states(miniature.teachers().language, batch, CPU))
        noise = model.patch_embed_cogvideo(mixed)
        token = model.temb_token(F.silu(time))[:, None]
        places, context, length = _generation_context(batch, noise.shape[1], CPU)
        hidden = core.decode(torch.cat([text, token, noise], dim=1), places, context)
        made = model.read_noise(hidden[:, -length:], time, *(mixed.shape[i] for i in (1, 3, 4)))
        return float((made - target).square().mean())

    with torch.no_grad():
        whole = float(diffusion_loss(model, scheduler, batch, CPU)) / batch.count
    assert whole == pytest.approx(alone(), rel=0.1)


@pytest.mark.parametrize("sources", [(Source.PICTURE, Source.CLIP), (Source.STILL, Source.VIDEO)])
def test_one_kind_of_rows_is_enough(clips, sources):
    model = miniature.model()
    batches = draw(clips, *sources)
    report = fit_start(model, miniature.teachers().language, build_scheduler(), batches)
    assert report["known"] > 0.99 and ("noise kept" in report) == (Source.VIDEO in sources)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
