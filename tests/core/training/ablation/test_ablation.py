"""The comparisons: equal compute, honest arms, a report of what came out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.layers import FullAttention
from core.training.ablation.__main__ import main
from core.training.ablation.arms import (
    ARMS,
    arm_run,
    arm_stages,
    build_first_model,
    curve,
    fold_modulation,
    reinitialized,
    stage_flops,
)
from core.training.ablation.report import draw_curves, table
from core.training.runs.run import RunContext
from core.training.runs.stage_steps import last_finished, load_model
from core.training.stages.parts import Norms
from core.training.stages.presets import tiny
from tests.core.training import miniature

FLOPS = {stage.name: 1e9 * (number + 1) for number, stage in enumerate(tiny())}


def test_every_arm_spends_the_same():
    full = sum(stage.config.steps * FLOPS[stage.name] for stage in tiny())
    for arm in ARMS:
        stages = arm_stages(arm, tiny(), FLOPS)
        spent = sum(stage.config.steps * FLOPS[stage.name] for stage in stages)
        assert spent == pytest.approx(full, rel=1e-2), arm.name
        assert (len(stages) == 1) == (not arm.staged)
        assert any(stage.warmup for stage in stages) == (arm.warmup and arm.staged)


@torch.no_grad()
def test_folding_keeps_what_noise_sees():
    """With the switch on the latent set, a folded model computes what the modulated one did."""
    model = miniature.model()
    for block in model.model.layers:
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            for tensor in (norm.SSG_L, norm.SSG_C):
                tensor.add_(0.3 * torch.randn_like(tensor))
            norm.indicator.bias.copy_(torch.tensor([40.0, -40.0]))
    hidden, places = torch.randn(2, 5, 48), torch.arange(5).expand(2, -1)
    before = model.model.forward_post(hidden, places, FullAttention())
    fold_modulation(model)
    after = model.model.forward_post(hidden, places, FullAttention())
    assert torch.allclose(before, after, atol=1e-5) and not torch.allclose(before, hidden, atol=1e-2)
    block = model.model.layers[-1]
    assert block.input_layernorm.SSG_L[0].abs().max() == 0 and (block.input_layernorm.SSG_L[2] == 1).all()


def test_a_fresh_model_knows_nothing_of_the_priors():
    model = miniature.model()
    one, other = reinitialized(model, 0), reinitialized(model, 1)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert not torch.equal(
        one.model.layers[1].mlp.gate_proj.weight, model.model.layers[1].mlp.gate_proj.weight
    )
    assert torch.equal(reinitialized(model, 0).lm_head.weight, one.lm_head.weight)


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_an_arm_runs_and_is_measured(arm, tmp_path):
    short = tuple(replace(stage, config=replace(stage.config, steps=1)) for stage in miniature.stages())
    way = arm_stages(arm, (short[0], short[-1]), dict.fromkeys((stage.name for stage in short), 1.0))
    parts = miniature.parts(tmp_path / "clips")
    arm_run(RunContext(tmp_path / "arm", 0, "cpu"), arm, way, parts).run()
    points = curve(tmp_path / "arm", way, FLOPS)
    figures = {"next_token/picture", "answer_accuracy/clip", "diffusion/video"}
    assert points[-1]["compute"] > 0 and figures <= set(points[-1])
    first, _ = build_first_model(arm, parts, 0)
    assert (first.model.pre_connector.pre_norm is not None) == arm.prescaling
    if arm.norms is Norms.PLAIN:
        trained = load_model(last_finished(tmp_path / "arm"))
        assert all((p[2] == 1).all() for name, p in trained.named_parameters() if "SSG_" in name)


def test_the_compute_of_a_stage_grows_with_what_it_does(tmp_path):
    parts = miniature.parts(tmp_path / "clips")
    stage = miniature.stages()[-1]
    once = stage_flops(parts, stage)
    twice = stage_flops(parts, replace(stage, rows={source: 2 * rows for source, rows in stage.rows.items()}))
    assert once > 1e7 and 1.6 < twice / once < 2.6


def test_the_report(tmp_path):
    def points(level: float) -> list[dict[str, float]]:
        keys = ("next_token/picture", "answer_accuracy/picture", "answer_accuracy/clip", "diffusion/video")
        return [{"compute": n + 1.0, **dict.fromkeys(keys, level / (n + 1))} for n in range(3)]

    results = {arm.name: {"0": points(1.0), "1": points(2.0)} for arm in ARMS[:3]}
    text = table(results)
    assert text.count("\n") == 4 and "| full | 0.500 (0.333-0.667)" in text
    draw_curves(results, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 20_000


def test_bad_requests_are_one_sentence(tmp_path, capsys):
    assert main(["--base-run", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "has no priors" in capsys.readouterr().err
    assert main(["--arms", "half", "--out", str(tmp_path)]) == 2
    assert "The arms are full, no warmup" in capsys.readouterr().err
