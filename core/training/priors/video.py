"""The small video prior: a CogVideoXTransformer3DModel that denoises the autoencoder's latents.

It reads prompts through the language prior's states, as HaploOmni's post-decoder will.
Its blocks do not know the time, as the post-decoder's will not (paper eq. 3).
Their modulation is the same at every timestep, so that nothing is lost when it is folded into the post part.
How noisy the latents are is seen in the latents; the last norm knows the time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from transformers import Qwen2ForCausalLM

from core.config import SPATIAL_INTERPOLATION_SCALE, TIME_EMBED_DIM
from core.files import SHIPPED_SHARD_BYTES
from core.geometry import LATENT_CHANNELS
from core.layers.attention import eager_attention
from core.schedule import build_scheduler
from core.training.data.latents import LatentClips
from core.training.loop.processes import BatchShard
from core.training.loop.task import SavedTask
from core.training.stages.losses import add_noise, per_sample_mse
from core.training.stages.teachers import encode_prompts, teacher_velocity

PROMPT_TOKENS = 48


def build_video_prior(text_width: int) -> CogVideoXTransformer3DModel:
    """2.7M parameters in six blocks of width 192, which start as identity.

    Of their modulation only the biases are trained, so that it does not depend on the time.

    Args:
        text_width: of the language prior's states.
    """
    video = CogVideoXTransformer3DModel(
        num_attention_heads=3,
        attention_head_dim=64,
        num_layers=6,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=TIME_EMBED_DIM,
        text_embed_dim=text_width,
        # a CPU computes it four times as fast as the released model's tanh approximation
        activation_fn="gelu",
        max_text_seq_length=PROMPT_TOKENS,
        sample_width=16,
        sample_height=16,
        sample_frames=9,
        spatial_interpolation_scale=SPATIAL_INTERPOLATION_SCALE,
    )
    with torch.no_grad():
        for block in video.transformer_blocks:
            for norm in (block.norm1, block.norm2):
                norm.linear.weight.zero_().requires_grad_(False)
                norm.linear.bias.zero_()
        video.proj_out.weight.zero_()
        video.proj_out.bias.zero_()
    return video


class EagerJointAttention:
    """CogVideoX's joint attention in plain matrix products.

    On a CPU their backward pass takes a third of the time of the fused one's.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        image_rotary_emb: None = None,  # noqa: ARG002
        attention_mask: None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Noise [B, N, D] and text [B, T, D] -> the same, mixed."""
        length = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query, key, value = (
            projection(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, H, S, E)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        query = attn.norm_q(query).to(value.dtype)
        key = attn.norm_k(key).to(value.dtype)
        mixed = eager_attention(query, key, value, None)  # (B, H, S, E)
        mixed = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return mixed[:, length:], mixed[:, :length]


class VideoPrior(SavedTask):
    """Trains a small CogVideoX transformer.

    Args:
        language: the language prior, which is not changed.
        stills, clips: encoded pictures and clips.
        still_rows, clip_rows: rows of each a step; 0 for none.
        seed: of data and starting values.
    """

    def __init__(
        self,
        language: Qwen2ForCausalLM,
        stills: LatentClips,
        clips: LatentClips,
        still_rows: int,
        clip_rows: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.loss_weights = {"still": 0.5, "video": 1.0} if clip_rows else {"still": 1.0}
        self.sources = {"still": (stills, still_rows), "video": (clips, clip_rows)}
        self.seed = seed
        self.scheduler = build_scheduler()
        self.language = language.requires_grad_(False)
        self.video = build_video_prior(language.config.hidden_size)
        self.video.set_attn_processor(EagerJointAttention())

    def sample_batch(self, share: BatchShard) -> dict[str, Any]:
        return {
            name: source.sample_batch(f"{self.seed}/video/{name}/{share.step}", rows, share)
            for name, (source, rows) in self.sources.items()
            if rows
        }

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        """Squared error of the predicted velocity, by source: scalars, each summed over rows."""
        losses = {}
        device = self.video.device
        for name, batch in batches.items():
            mixed, target, timestep = add_noise(self.scheduler, batch, device)
            states = encode_prompts(self.language, batch, device)
            predicted = teacher_velocity(self.video, mixed, states, batch.attention_mask, timestep)
            losses[name] = per_sample_mse(predicted, target).sum()
        return losses

    def save(self, folder: Path) -> None:
        """Write the prior as diffusers does."""
        self.video.save_pretrained(folder, max_shard_size=SHIPPED_SHARD_BYTES)
