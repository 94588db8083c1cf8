"""The small video prior: a CogVideoXTransformer3DModel that denoises the autoencoder's latents.

It reads prompts through the language prior's states, as HaploOmni's post-decoder will. Its blocks do not know the time,
as the post-decoder's will not (paper eq. 3): their modulation is the same at every timestep, so that nothing is lost when
it is folded into the post part. How noisy the latents are is seen in the latents; the last norm knows the time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from transformers import Qwen2ForCausalLM

from core.config import LATENT_CHANNELS, SPATIAL_INTERPOLATION_SCALE, TIME_EMBED_DIM
from core.layers.attention import eager_attention
from core.training.latents import LatentClips
from core.training.losses import language_states, noisy, row_errors, teacher_velocity
from core.training.trainer import SavedTask, Share

PROMPT_TOKENS = 40


def build_scheduler() -> CogVideoXDDIMScheduler:
    """The released schedule (spec section 5)."""
    return CogVideoXDDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
    )


def build_video_prior(text_width: int) -> CogVideoXTransformer3DModel:
    """2.7M parameters in six blocks of width 192, which start as identity; of their modulation only the biases learn."""
    video = CogVideoXTransformer3DModel(
        num_attention_heads=3,
        attention_head_dim=64,
        num_layers=6,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=TIME_EMBED_DIM,
        text_embed_dim=text_width,
        activation_fn="gelu",  # a CPU computes it four times as fast as the released model's tanh approximation
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
    """CogVideoX's joint attention in plain matrix products: on a CPU their backward pass takes a third of the fused one's."""

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
        mixed = eager_attention(attn.norm_q(query).to(value.dtype), attn.norm_k(key).to(value.dtype), value, None)
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
        self.weights = {"still": 0.5, "video": 1.0} if clip_rows else {"still": 1.0}
        self.sources = {"still": (stills, still_rows), "video": (clips, clip_rows)}
        self.seed, self.scheduler = seed, build_scheduler()
        self.language = language.requires_grad_(False)
        self.video = build_video_prior(language.config.hidden_size)
        self.video.set_attn_processor(EagerJointAttention())

    def draw(self, share: Share) -> dict[str, Any]:
        return {
            name: source.draw(f"{self.seed}/video/{name}/{share.step}", rows, share)
            for name, (source, rows) in self.sources.items()
            if rows
        }

    def counts(self, batches: dict[str, Any]) -> dict[str, int]:
        return {name: batch.count for name, batch in batches.items()}

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        losses, device = {}, self.video.device
        for name, batch in batches.items():
            mixed, target, timestep = noisy(self.scheduler, batch, device)
            states = language_states(self.language, batch, device)
            losses[name] = row_errors(teacher_velocity(self.video, mixed, states, timestep), target).sum()
        return losses

    def save(self, folder: Path) -> None:
        """Write the prior as diffusers does."""
        self.video.save_pretrained(folder)
