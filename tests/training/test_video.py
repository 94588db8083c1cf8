"""The small video prior and the clips it learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.errors import CheckpointError
from core.training.latents import clips_seed, towards_middle, towards_noise
from core.training.stages import Source
from core.training.trainer import Share
from core.training.video import build_video_prior
from core.weights.priors import frozen_time
from tests.training import miniature


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
    drawn = np.array([towards_middle(fraction) for fraction in np.linspace(0, 1, 1001)])
    assert drawn[0] == 0.0 and np.isclose(drawn[-1], 1.0) and (np.diff(drawn) > 0).all()
    counts, _ = np.histogram(drawn, 10, (0, 1))
    assert counts[4] > 1.8 * 1001 / 10 and counts[0] < 0.7 * 1001 / 10


def test_timesteps_of_clips_are_drawn_towards_the_noise():
    drawn = np.array([towards_noise(fraction) for fraction in np.linspace(0, 1, 1001)])
    counts, _ = np.histogram(drawn, 10, (0, 1))
    assert drawn[0] == 0.0 and drawn[-1] == 1.0 and (np.diff(counts) > 0).all() and counts[-1] > 1.8 * 1001 / 10


def test_every_other_clip_is_noisier(tmp_path):
    drawn = miniature.data(tmp_path).training
    clips, stills = (drawn[source].draw("timesteps", 64, Share(0)).timestep.float() for source in (Source.VIDEO, Source.STILL))
    assert clips[1::2].mean() > clips[::2].mean() + 100
    assert abs(stills[1::2].mean() - stills[::2].mean()) < 50


def test_clips_keep_the_seed_they_were_drawn_with(tmp_path):
    """Prompts are drawn from it: with the run's own, other seeds would speak of other clips."""
    with pytest.raises(CheckpointError, match="holds no encoded clips"):
        clips_seed(tmp_path)
    assert clips_seed(tmp_path, begin=3) == 3 and clips_seed(tmp_path) == 3 and clips_seed(tmp_path, begin=5) == 3
