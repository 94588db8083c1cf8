"""The three-part decoder: pre, connector, base, connector, post (spec section 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from core.config import HaploOmniConfig, PartConfig
from core.layers import (
    Attention,
    AttentionContext,
    Connector,
    FeedForward,
    MultimodalAdaLN,
    PatchEmbed,
    RMSNorm,
    rotary_table,
)
from core.layers.rotary import RotaryTable


class Block(GradientCheckpointingLayer):
    """One block of any part: attention and MLP, each behind an AdaLN that gates it too (paper eq. 2)."""

    def __init__(self, part: PartConfig, layer: int) -> None:
        super().__init__()
        width = part.hidden_size
        self.self_attn = Attention(
            width, part.num_attention_heads, part.num_key_value_heads, part.use_qk_norm, layer
        )
        self.mlp = FeedForward(width, part.intermediate_size, part.hidden_act)
        self.input_layernorm = MultimodalAdaLN(width, part.norm_eps, part.norm_mode)
        self.post_attention_layernorm = MultimodalAdaLN(width, part.norm_eps, part.norm_mode)

    def forward(self, hidden_states: Tensor, rotary: RotaryTable | None, context: AttentionContext) -> Tensor:
        """Both halves: [B, S, D] -> [B, S, D]."""
        # written out: what is alive at the worst moment is what quantization/memory.py counts
        hidden, gate = self.input_layernorm(hidden_states)
        hidden_states = hidden_states + self.self_attn(hidden, rotary, context) * gate
        hidden, gate = self.post_attention_layernorm(hidden_states)
        return hidden_states + self.mlp(hidden) * gate

    def attend(self, hidden_states: Tensor, rotary: RotaryTable | None, context: AttentionContext) -> Tensor:
        """The first half: what the tokens take from each other, added to them. [B, S, D] -> [B, S, D]."""
        hidden, gate = self.input_layernorm(hidden_states)
        return hidden_states + self.self_attn(hidden, rotary, context) * gate

    def feed_forward(self, hidden_states: Tensor) -> Tensor:
        """The second half: what every token makes of itself, added to it. [B, S, D] -> [B, S, D]."""
        hidden, gate = self.post_attention_layernorm(hidden_states)
        return hidden_states + self.mlp(hidden) * gate


class HaploOmniModel(nn.Module):
    """Tokens of any modality, embedded at the pre part's width, to last decoder states at the post part's."""

    def __init__(self, config: HaploOmniConfig) -> None:
        super().__init__()
        parts = [config.part(name) for name in ("pre", "base", "post")]
        self.pre, self.base, self.post = parts
        self.embed_tokens = nn.Embedding(config.vocab_size, self.pre.hidden_size)
        self.patch_embed = PatchEmbed(self.pre.hidden_size, config.patch_size)
        self.pre_pos_embed = nn.Parameter(torch.zeros(1, config.patches_per_side**2, self.pre.hidden_size))
        self.image_newline = nn.Parameter(torch.zeros(self.pre.hidden_size))
        self.pre_norm = nn.LayerNorm(self.pre.hidden_size, eps=1e-5)
        self.part_of_block = [part for part in parts for _ in range(part.num_hidden_layers)]
        self.layers = nn.ModuleList(Block(part, layer) for layer, part in enumerate(self.part_of_block))
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

    @property
    def part_starts(self) -> tuple[int, int]:
        """Numbers of the base part's first block and of the post part's."""
        return self.pre.num_hidden_layers, self.pre.num_hidden_layers + self.base.num_hidden_layers

    def forward(self, embeds: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """[B, S, pre width] and position ids [B, S] -> last decoder states [B, S, post width]."""
        encoded = self.forward_pre(embeds, position_ids, context)
        return self.forward_from_base(encoded, position_ids, context)

    def forward_pre(self, embeds: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """The pre-decoder alone: [B, S, pre width] -> [B, S, pre width]."""
        layers = self.layers[: self.part_starts[0]]
        return self.run(layers, self.pre, self.enter_pre(embeds), position_ids, context)

    def forward_base(self, encoded: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """The base-decoder with its connector and last norm: [B, S, pre width] -> [B, S, base width]."""
        layers = self.layers[slice(*self.part_starts)]
        hidden = self.run(layers, self.base, self.enter_base(encoded), position_ids, context)
        return self.norm(hidden)

    def forward_post(self, hidden: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """The post-decoder alone, without its connector: [B, S, post width] -> [B, S, post width]."""
        return self.run(self.layers[self.part_starts[1] :], self.post, hidden, position_ids, context)

    def forward_from_base(self, encoded: Tensor, position_ids: Tensor, context: AttentionContext) -> Tensor:
        """Everything behind the pre-decoder: [B, S, pre width] -> [B, S, post width]."""
        states = self.forward_base(encoded, position_ids, context)
        return self.forward_post(self.enter_post(states), position_ids, context)

    def enter_pre(self, embeds: Tensor) -> Tensor:
        """Embedded tokens -> what the pre part's first block reads: [B, S, pre width]."""
        return self.pre_norm(embeds)

    def enter_base(self, encoded: Tensor) -> Tensor:
        """What the pre part made -> what the base part's first block reads: [B, S, base width]."""
        return self.pre_connector(encoded)

    def enter_post(self, states: Tensor) -> Tensor:
        """Normed states of the base part -> what the post part's first block reads: [B, S, post width]."""
        return self.post_connector(states)

    def text_head_states(self, hidden: Tensor) -> Tensor:
        """Last decoder states -> what lm_head reads: [B, S, base width]."""
        return self.post_linear(self.post_norm(hidden)) * self.post_scale.to(hidden.dtype)

    def run(
        self,
        layers: nn.ModuleList,
        part: PartConfig,
        hidden: Tensor,
        position_ids: Tensor,
        context: AttentionContext,
    ) -> Tensor:
        """Some blocks of a part, one after the other: [B, S, D] -> [B, S, D] at the part's width."""
        rotary = self.rotary(part, position_ids, hidden.dtype)
        for layer in layers:
            hidden = layer(hidden, rotary, context)
        return hidden

    def rotary(self, part: PartConfig, position_ids: Tensor, dtype: torch.dtype) -> RotaryTable | None:
        """The rotation of a part's queries and keys at positions [B, S]; None where it has none."""
        if not part.use_pe:
            return None
        own = part if part.attention_rope else self.base
        return rotary_table(position_ids, own.head_dim, own.rope_theta, dtype)
