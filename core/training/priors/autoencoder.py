"""The small video autoencoder of the bundled model: an AutoencoderKLCogVideoX trained on procedural clips."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from torch.nn import functional

from core.evaluation.clips import evaluate_autoencoder, group_scenes, single_scenes
from core.files import SHIPPED_SHARD_BYTES
from core.geometry import LATENT_CHANNELS, SPATIAL_COMPRESSION, latent_frames
from core.profile import PreviewFactors
from core.training.loop.processes import BatchShard
from core.training.loop.task import SavedTask
from core.training.priors.latent_statistics import latent_statistics
from core.training.priors.training_clips import FRAMES, training_clip

LONG_FRAMES = 17
LONG_EVERY = 8  # steps: then the clips are longer
LARGE_EVERY = 5  # steps: then the crops are larger
KL_WEIGHT = 3e-5
LATENT_ERROR = 0.3  # of the latents' deviation, at most: the decoder must bear what denoising gets wrong
SIZES = ((96, 96), (128, 128), (128, 128), (128, 128), (128, 192), (192, 128), (160, 160), (192, 192))
EDGE_WEIGHT = 1.0
MOTION_WEIGHT = 0.5
EDGE_SCALES = (1, 2, 4)  # pixels an edge is looked at with
MEASURED_CLIPS = 16
CHANNELS = (16, 48, 96, 96)


def build_autoencoder() -> AutoencoderKLCogVideoX:
    """16 latent channels, 8x in space, 4x in time, like the released one, with 5.8M parameters.

    Most of them are where little is left to compute: at the lower resolutions, which know where things go.
    """
    return AutoencoderKLCogVideoX(
        block_out_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=16,
        sample_height=96,
        sample_width=160,
        scaling_factor=1.0,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
    )


def widened(narrow: AutoencoderKLCogVideoX) -> AutoencoderKLCogVideoX:
    """The autoencoder of today's size that starts as a narrower one (Net2Net, Chen et al. 2016).

    A new channel is a copy of an old one of the same norm group.
    What reads both divides its weight between them, unevenly, so that they learn different things.
    """
    wide = build_autoencoder()
    old = narrow.state_dict()
    made = {}
    generator = torch.Generator().manual_seed(0)
    for name, value in wide.state_dict().items():
        source = old[name].float()
        kept = _copied(source.shape[0], value.shape[0], wide.config.norm_num_groups)
        source = source[kept]  # output channels
        if source.dim() > 1 and source.shape[1] != value.shape[1]:
            kept = _copied(source.shape[1], value.shape[1], wide.config.norm_num_groups)
            shares = torch.rand(len(kept), generator=generator) + 0.5
            sums = torch.zeros(source.shape[1]).index_add(0, kept, shares)
            source = source[:, kept] * (shares / sums[kept]).view(1, -1, *[1] * (source.dim() - 2))
        made[name] = source
    wide.load_state_dict(made)
    return wide


def _copied(old: int, new: int, groups: int) -> Tensor:
    """For every one of ``new`` channels the old one it is a copy of, within its norm group: [new]."""
    if old == new:
        return torch.arange(old)
    before = old // groups
    after = new // groups
    return torch.cat([group * before + torch.arange(after) % before for group in range(groups)])


@dataclass
class CropBatch:
    """Parts of clips to encode and decode.

    Args:
        video: [B, 3, T, H, W] in [-1, 1].
        weight: of its pixels [B, 1, T, H, W].
        noise: [B, 16, F, h, w], draws the latents from the posterior.
        error: like the noise, added to the latents in units of their deviation; None for none.
    """

    video: Tensor
    weight: Tensor
    noise: Tensor
    error: Tensor | None = None


def edge_errors(error: Tensor, weight: Tensor) -> Tensor:
    """How much a reconstruction's edges differ: [B], from error [B, 3, T, H, W] and weights [B, 1, T, H, W].

    The mean absolute gradient of the error, weighted as the pixels are, at several scales.
    What is blurred has much of it for little squared error.
    """
    total = torch.zeros(len(error), device=error.device)
    for scale in EDGE_SCALES:
        pool = (1, scale, scale)
        coarse, counts = (functional.avg_pool3d(values, pool) for values in (error, weight))
        across = (coarse[..., 1:] - coarse[..., :-1]).abs() * counts[..., 1:]
        down = (coarse[..., 1:, :] - coarse[..., :-1, :]).abs() * counts[..., 1:, :]
        total += (across.flatten(1).mean(1) + down.flatten(1).mean(1)) / counts.flatten(1).mean(1)
    return total / len(EDGE_SCALES)


def motion_errors(error: Tensor, weight: Tensor) -> Tensor:
    """How much its changes from frame to frame differ: [B], shapes as in :func:`edge_errors`."""
    change = (error[:, :, 1:] - error[:, :, :-1]).abs() * weight[:, :, 1:]
    return change.flatten(1).mean(1) / weight[:, :, 1:].flatten(1).mean(1)


def autoencoder_losses(vae: AutoencoderKLCogVideoX, batch: CropBatch) -> dict[str, Tensor]:
    """Losses by name, scalars, each a mean over pixels summed over rows.

    Weighted L1 + L2 of the reconstruction, errors of its edges and of its motion, and the KL term.
    The squared error is only reported.
    """
    video = batch.video.to(vae.device)  # (B, 3, T, H, W)
    weight = batch.weight.to(vae.device)  # (B, 1, T, H, W)
    posterior = vae.encode(video).latent_dist
    mean = posterior.mean.float()  # (B, 16, F, h, w)
    logvar = posterior.logvar.float()
    latents = mean + batch.noise.to(vae.device) * (0.5 * logvar).exp()
    if batch.error is not None:
        latents = latents + batch.error.to(vae.device) * mean.detach().std()
    error = vae.decode(latents).sample.float() - video
    weighted = weight * (error.abs() + 2.0 * error.square())
    reconstruction = weighted.flatten(1).mean(1) / weight.flatten(1).mean(1)
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).mean(1)
    return {
        "reconstruction": reconstruction.sum(),
        "edges": edge_errors(error, weight).sum(),
        "motion": motion_errors(error, weight).sum(),
        "kl": kl.sum(),
        "mse": error.detach().square().flatten(1).mean(1).sum(),
    }


class AutoencoderTask(SavedTask):
    """Trains the autoencoder, or its decoder alone, which then also learns to bear errors in the latents.

    Args:
        vae: the autoencoder.
        rows: small crops a step; of the large ones a third as many, of long ones half.
        decoder_only: the encoder rests, so that encoded clips stay valid.
        seed: of the data.
    """

    def __init__(
        self, vae: AutoencoderKLCogVideoX, rows: int = 6, decoder_only: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.loss_weights = {
            "reconstruction": 1.0,
            "edges": EDGE_WEIGHT,
            "motion": MOTION_WEIGHT,
            "kl": KL_WEIGHT,
        }
        self.vae = vae
        self.rows = rows
        self.decoder_only = decoder_only
        self.seed = seed
        vae.encoder.requires_grad_(not decoder_only)

    def sample_batch(self, share: BatchShard) -> dict[str, Any]:
        # all processes draw clips of one size
        key = f"{self.seed}/autoencoder/{self.decoder_only}/{share.step}"
        size = random.Random(key).choice(SIZES)
        large = share.step % LARGE_EVERY == 0
        crop = 96 if large else 48
        frames = LONG_FRAMES if share.step % LONG_EVERY == 3 else FRAMES
        rows = max(share.parts, self.rows * FRAMES // frames // (3 if large else 1))
        side = crop // SPATIAL_COMPRESSION
        made = []
        for row in share.rows(rows):
            rng = random.Random(f"{key}/{row}")
            video, weight = training_clip(rng, size, crop, frames)
            generator = torch.Generator().manual_seed(rng.getrandbits(60))
            noise = torch.randn(LATENT_CHANNELS, latent_frames(frames), side, side, generator=generator)
            error = LATENT_ERROR * rng.random() * torch.randn(noise.shape, generator=generator)
            made.append((video, weight, noise, error))
        video, weight, noise, error = (torch.stack(values) for values in zip(*made, strict=True))
        return {"clips": CropBatch(video, weight, noise, error if self.decoder_only else None)}

    def num_items(self, batches: dict[str, Any]) -> dict[str, int]:
        return dict.fromkeys((*self.loss_weights, "mse"), len(batches["clips"].video))

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        """The crops' losses as scalars, by name, each summed over crops."""
        return autoencoder_losses(self.vae, batches["clips"])

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """What becomes of held-out clips of one object and of two."""
        made: dict[str, float] = {}
        for name, scenes in (
            ("one_object", single_scenes(random.Random(1), held_out=True)),
            ("two_objects", group_scenes(random.Random(1), held_out=True)),
        ):
            found = evaluate_autoencoder(self.vae, scenes, MEASURED_CLIPS)
            right, total = list(found.scores.values())[-1]  # everything about a clip together
            made[f"val/detection_accuracy/{name}"] = right / total
            made[f"val/object_psnr/{name}"] = found.object_psnr
            made[f"val/edge_error/{name}"] = found.edge_error
        return made

    def save(self, folder: Path) -> None:
        """Write the autoencoder as diffusers does, and its preview factors.

        Its scaling factor is the one that gives latents unit variance.
        """
        statistics = latent_statistics(self.vae)
        self.vae.register_to_config(scaling_factor=round(1.0 / statistics["std"], 5))
        self.vae.save_pretrained(folder, max_shard_size=SHIPPED_SHARD_BYTES)
        PreviewFactors(statistics["factors"], statistics["bias"], statistics["r2"]).save(folder)
