"""The three-part decoder: pre, connector, base, connector, post (spec section 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from core.config import HaploOmniConfig, PartConfig
from core.layers import Attention, AttentionContext, Connector, FeedForward, MultimodalAdaLN, PatchEmbed, RMSNorm, rotary_table
from core.layers.rotary import RotaryTable


class Block(GradientCheckpointingLayer):
    """One block of any part: attention and MLP, each behind a multimodal AdaLN and gated by it (paper eq. 2)."""

    def __init__(self, part: PartConfig, layer: int) -> None:
        super().__init__()
        width = part.hidden_size
        self.self_attn = Attention(width, part.num_attention_heads, part.num_key_value_heads, part.use_qk_norm, layer)
        self.mlp = FeedForward(width, part.intermediate_size, part.hidden_act)
        self.input_layernorm = MultimodalAdaLN(width, part.norm_eps, part.norm_mode)
        self.post_attention_layernorm = MultimodalAdaLN(width, part.norm_eps, part.norm_mode)

    def forward(self, hidden_states: Tensor, rotary: RotaryTable | None, context: AttentionContext) -> Tensor:
        hidden, gate = self.input_layernorm(hidden_states)
        hidden_states = hidden_states + self.self_attn(hidden, rotary, context) * gate
        hidden, gate = self.post_attention_layernorm(hidden_states)
        return hidden_states + self.mlp(hidden) * gate


class HaploOmniModel(nn.Module):
    """Tokens of any modality, embedded at the pre part's width, to last decoder states of the post part's width."""

    def __init__(self, config: HaploOmniConfig) -> None:
        super().__init__()
        self.pre, self.base, self.post = (config.part(name) for name in ("pre", "base", "post"))
        self.embed_tokens = nn.Embedding(config.vocab_size, self.pre.hidden_size)
        self.patch_embed = PatchEmbed(self.pre.hidden_size, config.patch_size)
        self.pre_pos_embed = nn.Parameter(torch.zeros(1, config.patches_per_side**2, self.pre.hidden_size))
        self.image_newline = nn.Parameter(torch.zeros(self.pre.hidden_size))
        self.pre_norm = nn.LayerNorm(self.pre.hidden_size, eps=1e-5)
        parts = [self.pre] * self.pre.num_hidden_layers + [self.base] * self.base.num_hidden_layers
        parts += [self.post] * self.post.num_hidden_layers
        self.layers = nn.ModuleList(Block(part, layer) for layer, part in enumerate(parts))
        into_base, into_post = config.connector("pre"), config.connector("post")
        self.pre_connector = Connector(
            self.pre.hidden_size, self.base.hidden_size, into_base.use_pre_norm, into_base.use_affine_bias
        )
        self.norm = RMSNorm(self.base.hidden_size, self.base.norm_eps)
        self.post_connector = Connector(
            self.base.hidden_size, self.post.hidden_size, into_post.use_pre_norm, into_post.use_affine_bias
        )
        self.post_norm = nn.LayerNorm(self.post.hidden_size, eps=1e-5)
        self.post_linear = nn.Linear(self.post.hidden_size, self.base.hidden_size)
        self.post_scale = nn.Parameter(torch.ones(self.base.hidden_size))

    def forward(self, embeds: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """[B, S, pre width] and position ids [B, S] -> last decoder states [B, S, post width]."""
        return self.finish(self.encode(embeds, position_ids, context), position_ids, context)

    def encode(self, embeds: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """The pre-decoder alone: [B, S, pre width] -> [B, S, pre width]."""
        layers = self.layers[: self.pre.num_hidden_layers]
        return self.run(layers, self.pre, self.pre_norm(embeds), position_ids, context)

    def finish(self, encoded: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """Everything behind the pre-decoder: [B, S, pre width] -> [B, S, post width]."""
        first, second = self.pre.num_hidden_layers, self.pre.num_hidden_layers + self.base.num_hidden_layers
        hidden = self.run(self.layers[first:second], self.base, self.pre_connector(encoded), position_ids, context)
        return self.decode(self.post_connector(self.norm(hidden)), position_ids, context)

    def decode(self, hidden: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """The post-decoder alone: [B, S, post width] -> [B, S, post width]."""
        return self.run(self.layers[-self.post.num_hidden_layers :], self.post, hidden, position_ids, context)

    def answer_states(self, hidden: Tensor) -> Tensor:
        """Last decoder states -> what lm_head reads: [B, S, base width]."""
        return self.post_linear(self.post_norm(hidden)) * self.post_scale.to(hidden.dtype)

    def run(
        self, layers: nn.ModuleList, part: PartConfig, hidden: Tensor, position_ids: Tensor, context: AttentionContext
    ) -> Tensor:
        """Some blocks of a part, one after the other: [B, S, D] -> [B, S, D] at the part's width."""
        rotary = None
        if part.use_pe:
            own = part if part.attention_rope else self.base
            rotary = rotary_table(position_ids, own.head_dim, own.rope_theta, hidden.dtype)
        for layer in layers:
            hidden = layer(hidden, rotary, context)
        return hidden
