"""The autoencoder: its losses, and latents that are balanced without changing what is drawn."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from core.evaluation.clips import reconstruct
from core.scenes.arrangements import sample_scene
from core.scenes.scene import render
from core.training.loop.processes import BatchShard
from core.training.priors.autoencoder import (
    LARGE_EVERY,
    LONG_FRAMES,
    AutoencoderTask,
    CropBatch,
    autoencoder_losses,
    build_autoencoder,
    edge_errors,
    motion_errors,
    widened,
)
from core.training.priors.latent_statistics import latent_moments, whiten_latents
from core.training.priors.training_clips import hard_scene


@pytest.fixture(scope="module")
def vae(bundled) -> AutoencoderKLCogVideoX:
    return widened(bundled.vae).eval()


def test_a_wider_autoencoder_starts_as_the_narrower_one(bundled, vae):
    """Every channel is there, some twice; the norms of groups with copies differ a little."""
    narrow = bundled.vae.float()
    assert sum(p.numel() for p in vae.parameters()) > 2 * sum(p.numel() for p in narrow.parameters())
    scene = replace(sample_scene(random.Random(0), motion="left"), background_rgb=(0, 0, 0), texture="plain")
    clip = render(scene, 96, 96, 9)
    truth, one, other = (
        frames.astype(float) for frames in (clip, reconstruct(narrow, clip), reconstruct(vae, clip))
    )
    assert np.abs(one - other).mean() < 0.75 * np.abs(one - truth).mean() + 1.0
    assert np.abs(other - truth).mean() < 6.0


def test_blur_costs_more_edges_than_it_costs_squares():
    """A blurred square and one of another brightness with the same squared error."""
    square = torch.zeros(1, 3, 2, 32, 32)
    square[..., 8:24, 8:24] = 1.0
    blurred = torch.nn.functional.avg_pool3d(square, (1, 5, 5), stride=1, padding=(0, 2, 2))
    error = blurred - square
    dimmed = square * (error.square().mean() / square.square().mean()).sqrt()
    weight = torch.ones(1, 1, 2, 32, 32)
    assert float(error.square().mean()) == pytest.approx(float(dimmed.square().mean()), rel=1e-4)
    assert float(edge_errors(error, weight)) > 1.5 * float(edge_errors(dimmed, weight)) > 0
    assert float(motion_errors(error, weight)) == 0.0


def test_hard_clips_are_small_and_quick_or_covered():
    rng, covered, small = random.Random(0), 0, 0
    for _ in range(40):
        scene = hard_scene(rng, 128, 128)
        covered += len(scene.objects) > 1
        small += len(scene.objects) == 1 and scene.objects[0].radius <= 0.15
    assert covered + small == 40 and min(covered, small) > 8


@torch.no_grad()
def test_balanced_latents_draw_the_same(vae):
    mean, covariance = latent_moments(vae, clips=4)
    balanced = build_autoencoder()
    balanced.load_state_dict(vae.state_dict())
    matrix = whiten_latents(balanced.eval(), mean, covariance)
    clip = AutoencoderTask(vae).sample_batch(BatchShard(0))["clips"].video[:1]
    before, after = (model.encode(clip).latent_dist.mode() for model in (vae, balanced))
    expected = torch.einsum("pc,bcfhw->bpfhw", matrix, before - mean[None, :, None, None, None])
    assert torch.allclose(after, expected, atol=1e-3)
    drawn, again = vae.decode(before).sample, balanced.decode(after).sample
    inside = (..., slice(16, -16), slice(16, -16))
    assert (drawn - again)[inside].abs().mean() < 0.02 * drawn.abs().mean()
    spread = torch.linalg.eigvalsh(covariance)
    new = torch.linalg.eigvalsh(matrix @ covariance @ matrix.T)
    assert (new.max() / new.min()) == pytest.approx(float((spread.max() / spread.min()) ** 0.5), rel=1e-2)
    assert latent_moments(balanced, clips=4)[0].abs().max() < 1e-2 * mean.abs().max()


def test_losses_are_sums_over_rows(vae):
    batch = AutoencoderTask(vae).sample_batch(BatchShard(1))["clips"]
    assert (
        batch.error is None
        and batch.video.shape == (6, 3, 9, 48, 48)
        and float(batch.video.abs().max()) <= 1.0
    )
    two = CropBatch(batch.video[:2], batch.weight[:2], batch.noise[:2])
    with torch.no_grad():
        both = autoencoder_losses(vae, two)
        apart = [
            autoencoder_losses(
                vae, CropBatch(two.video[n : n + 1], two.weight[n : n + 1], two.noise[n : n + 1])
            )
            for n in (0, 1)
        ]
    for name, value in both.items():
        assert float(value) == pytest.approx(sum(float(one[name]) for one in apart), rel=1e-3), name


def test_the_decoder_alone_learns_under_errors(vae):
    vae = copy.deepcopy(vae)  # the others' goes on learning as a whole
    task = AutoencoderTask(vae, decoder_only=True)
    assert not any(p.requires_grad for p in vae.encoder.parameters()) and all(
        p.requires_grad for p in vae.decoder.parameters()
    )
    assert task.sample_batch(BatchShard(0))["clips"].error is not None
    large = task.sample_batch(BatchShard(LARGE_EVERY))["clips"].video
    assert large.shape[-2:] == (96, 96) and len(large) == 2
    long = task.sample_batch(BatchShard(3))["clips"].video
    assert long.shape[2] == LONG_FRAMES and len(long) == 3
