"""The small video prior and the clips it learns from."""

from __future__ import annotations

import numpy as np
import torch

from core.training.data.noise import bias_timesteps_to_middle, bias_timesteps_to_noise
from core.training.loop.processes import BatchShard
from core.training.priors.video import build_video_prior
from core.training.stages.stage import Source
from core.weights.priors import frozen_time
from tests.core.training import miniature


def test_the_blocks_of_the_small_prior_do_not_know_the_time():
    prior = build_video_prior(48)
    with torch.no_grad():
        for parameter in prior.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    early, late = frozen_time(prior, 20), frozen_time(prior, 980)
    assert not torch.allclose(early, late, atol=0.1)
    for block in prior.transformer_blocks:
        for norm in (block.norm1, block.norm2):
            told = norm.linear(norm.silu(early))
            assert torch.equal(told, norm.linear(norm.silu(late))) and told.abs().max() > 0.01


def test_timesteps_are_drawn_towards_the_middle():
    drawn = np.array([bias_timesteps_to_middle(fraction) for fraction in np.linspace(0, 1, 1001)])
    assert drawn[0] == 0.0 and np.isclose(drawn[-1], 1.0) and (np.diff(drawn) > 0).all()
    counts, _ = np.histogram(drawn, 10, (0, 1))
    assert counts[4] > 1.8 * 1001 / 10 and counts[0] < 0.7 * 1001 / 10


def test_timesteps_of_clips_are_drawn_towards_the_noise():
    drawn = np.array([bias_timesteps_to_noise(fraction) for fraction in np.linspace(0, 1, 1001)])
    counts, _ = np.histogram(drawn, 10, (0, 1))
    assert (
        drawn[0] == 0.0 and drawn[-1] == 1.0 and (np.diff(counts) > 0).all() and counts[-1] > 1.8 * 1001 / 10
    )


def test_every_other_clip_is_noisier(tmp_path):
    drawn = miniature.data(tmp_path).training
    clips, stills = (
        drawn[source].sample_batch("timesteps", 64, BatchShard(0)).timestep.float()
        for source in (Source.VIDEO, Source.STILL)
    )
    assert clips[1::2].mean() > clips[::2].mean() + 100
    assert abs(stills[1::2].mean() - stills[::2].mean()) < 50
