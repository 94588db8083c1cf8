"""Every tensor of a HaploOmni checkpoint, by name and shape, from the configuration alone (spec section 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from core.config import LATENT_CHANNELS, LATENT_PATCH, TIME_EMBED_DIM, HaploOmniConfig, PartConfig

PARTS = ("embeddings", "pre", "base", "post", "connectors", "noise", "lm_head")
BLOCK_PARTS = ("pre", "base", "post")
CHANNELS = 3  # of a picture


@dataclass(frozen=True)
class TensorSpec:
    """One tensor.

    Args:
        part: one of :data:`PARTS`.
        quantizable: a matrix of a block; nothing else is ever quantized.
    """

    name: str
    shape: tuple[int, ...]
    part: str
    quantizable: bool = False

    @property
    def numbers(self) -> int:
        """How many."""
        return prod(self.shape)


Named = Iterator[tuple[str, tuple[int, ...]]]


def tensors(config: HaploOmniConfig) -> Iterator[TensorSpec]:
    """All tensors: the heads, then block by block."""
    pre, base, post = (config.part(name) for name in BLOCK_PARTS)
    yield TensorSpec("model.embed_tokens.weight", (config.vocab_size, pre.hidden_size), "embeddings")
    for name, shape in _frame(config, pre, base, post):
        yield TensorSpec(f"model.{name}", shape, "connectors")
    for name, shape in _noise(pre.hidden_size, post.hidden_size):
        yield TensorSpec(name, shape, "noise")
    number = 0
    for part, own in zip(BLOCK_PARTS, (pre, base, post), strict=True):
        for _ in range(own.num_hidden_layers):
            for name, shape in block_tensors(own):
                matrix = name.endswith("_proj.weight")
                yield TensorSpec(f"model.layers.{number}.{name}", shape, part, matrix)
            number += 1
    yield TensorSpec("lm_head.weight", (config.vocab_size, base.hidden_size), "lm_head")


def block_tensors(part: PartConfig) -> Named:
    """One block's."""
    width, inner, keys = part.hidden_size, part.intermediate_size, part.num_key_value_heads * part.head_dim
    matrices = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    for name, shape in matrices.items():
        yield from _linear(name, *shape)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield from _norm(norm, width, bias=part.norm_mode == "layernorm")
        yield f"{norm}.SSG_C", (3, width)
        yield f"{norm}.SSG_L", (3, width)
        yield from _linear(f"{norm}.indicator", 2, width)
    if part.use_qk_norm:
        yield from _norm("self_attn.norm_q", part.head_dim)
        yield from _norm("self_attn.norm_k", part.head_dim)


def _frame(config: HaploOmniConfig, pre: PartConfig, base: PartConfig, post: PartConfig) -> Named:
    """Picture patches, norms between the parts, connectors, and the way to the words."""
    yield "pre_pos_embed", (1, config.patches_per_side**2, pre.hidden_size)
    yield "image_newline", (pre.hidden_size,)
    yield "post_scale", (base.hidden_size,)
    yield "patch_embed.proj.weight", (pre.hidden_size, CHANNELS, config.patch_size, config.patch_size)
    yield from _norm("pre_norm", pre.hidden_size)
    yield from _connector(config, "pre", pre.hidden_size, base.hidden_size)
    yield "norm.weight", (base.hidden_size,)
    yield from _connector(config, "post", base.hidden_size, post.hidden_size)
    yield from _norm("post_norm", post.hidden_size)
    yield from _linear("post_linear", base.hidden_size, post.hidden_size)


def _connector(config: HaploOmniConfig, part: str, given: int, width: int) -> Named:
    own, name = config.connector(part), f"{part}_connector"
    yield from _linear(f"{name}.affine", width, given, own.use_affine_bias)
    yield from _norm(f"{name}.transform.0", width)
    yield from _linear(f"{name}.transform.2", width, width)
    yield from _linear(f"{name}.connector_indicator.1", 2, width)
    if own.use_pre_norm:
        yield from _norm(f"{name}.pre_norm", given)
        yield f"{name}.scale", (width,)


def _noise(pre: int, post: int) -> Named:
    """From latents to tokens and back, and the time."""
    patch = LATENT_CHANNELS * LATENT_PATCH**2
    yield "patch_embed_cogvideo.proj.weight", (post, LATENT_CHANNELS, LATENT_PATCH, LATENT_PATCH)
    yield "patch_embed_cogvideo.proj.bias", (post,)
    yield from _linear("v2t_projector", pre, post)
    yield from _linear("time_embedding.linear_1", TIME_EMBED_DIM, post)
    yield from _linear("time_embedding.linear_2", TIME_EMBED_DIM, TIME_EMBED_DIM)
    yield from _linear("temb_token", post, TIME_EMBED_DIM)
    yield from _norm("norm_final", post)
    yield from _linear("norm_out.linear", 2 * post, TIME_EMBED_DIM)
    yield from _norm("norm_out.norm", post)
    yield from _linear("proj_out", patch, post)


def _linear(name: str, rows: int, columns: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def _norm(name: str, width: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)
