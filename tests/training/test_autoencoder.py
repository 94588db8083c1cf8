"""The autoencoder: its losses, and latents that are balanced without changing what is drawn."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from core.training.autoencoder import (
    AutoencoderTask,
    CropBatch,
    autoencoder_losses,
    balance_latents,
    build_autoencoder,
    latent_moments,
)
from core.training.trainer import Share


@pytest.fixture(scope="module")
def vae(bundled) -> AutoencoderKLCogVideoX:
    made = build_autoencoder()
    made.load_state_dict(bundled.vae.state_dict())
    return made.eval()


@torch.no_grad()
def test_balanced_latents_draw_the_same(vae):
    mean, covariance = latent_moments(vae, clips=4)
    balanced = build_autoencoder()
    balanced.load_state_dict(vae.state_dict())
    matrix = balance_latents(balanced.eval(), mean, covariance)
    clip = AutoencoderTask(vae, 1).draw(Share(0))["clips"].video[:1]
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
    batch = AutoencoderTask(vae, 10).draw(Share(0))["clips"]
    assert batch.error is None and batch.video.shape == (6, 3, 9, 48, 48) and float(batch.video.abs().max()) <= 1.0
    two = CropBatch(batch.video[:2], batch.weight[:2], batch.noise[:2])
    with torch.no_grad():
        both = autoencoder_losses(vae, two)
        apart = [
            autoencoder_losses(vae, CropBatch(two.video[n : n + 1], two.weight[n : n + 1], two.noise[n : n + 1])) for n in (0, 1)
        ]
    for name, value in both.items():
        assert float(value) == pytest.approx(sum(float(one[name]) for one in apart), rel=1e-3), name
    assert float(both["squared error"]) / 2 < 0.02, "the bundled autoencoder draws well"


def test_the_decoder_alone_learns_under_errors(vae):
    task = AutoencoderTask(vae, 10, decoder_only=True)
    assert not any(p.requires_grad for p in vae.encoder.parameters()) and all(p.requires_grad for p in vae.decoder.parameters())
    assert task.draw(Share(0))["clips"].error is not None
    large = task.draw(Share(9))["clips"].video
    assert large.shape[-2:] == (96, 96) and len(large) == 2
    vae.encoder.requires_grad_(True)
