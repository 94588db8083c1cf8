"""A HaploOmni from three priors: CLIP-ViT, Qwen2 and CogVideoX (paper section 3.2).

What the parts compute is preserved wherever the architecture allows:

- pre part: the CLIP encoder run on patch tokens. Its class token has no place in HaploOmni and is dropped.
- base part: the Qwen2 decoder, its rotary positions included, up to the final norm.
  Word embeddings enter HaploOmni at the width of the pre part: they are projected to the best subspace of it,
  and the pre-connector starts as the way back. What lies outside the subspace is lost.
- post part: the CogVideoX blocks at ONE time embedding, folded into the modulation sets.
  The latent set is what CogVideoX does to noise, the condition set what it does to text.
  The dependence on time is lost there (paper eq. 3); the output head keeps it.
  CogVideoX lets text see noise, HaploOmni does not.

Connectors, the timestep token and the noise projector are new and get starting values.

    python -m core.weights.priors --vision CLIP --language QWEN2 --video COGVIDEOX --out FOLDER
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn
from transformers import CLIPVisionModel, Qwen2ForCausalLM

from core.config import HaploOmniConfig
from core.errors import ConfigError, HaploOmniError
from core.layers import MultimodalAdaLN
from core.model.decoder import Block
from core.model.modeling import HaploOmniForConditionalGeneration
from core.processor import HaploOmniProcessor
from core.profile import default_profile
from core.weights.prior_loading import (
    VIDEO_ACTIVATIONS,
    check_priors,
    load_prior,
    load_tokenizer,
    token_settings,
)

UNTRAINED = "What its vision, language and video prior know; together they have not been trained yet."
DIRECT = 4.0  # starting logit of a connector's direct path against its transform
# settings that CLIP, Qwen2 and HaploOmni call by the same name
SHARED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")


def build_from_priors(
    vision: CLIPVisionModel,
    language: Qwen2ForCausalLM,
    video: CogVideoXTransformer3DModel,
    image_token: int,
    video_token: int,
    frozen_timestep: int = 500,
    **settings: Any,
) -> HaploOmniForConditionalGeneration:
    """Put the three priors into one stack, in float32.

    Args:
        vision, language, video: the priors; they are not changed.
        image_token, video_token: ids of the placeholders in the language prior's vocabulary.
        frozen_timestep: the timestep whose embedding is folded into the post part (0 to 999).
        settings: further keys of :class:`HaploOmniConfig`.

    Raises:
        ConfigError: a prior of the wrong class or with settings that HaploOmni cannot express.
    """
    check_priors(vision, language, video)
    rows = _embedding(language).shape[0]
    if max(image_token, video_token) >= rows:
        raise ConfigError(
            f"The placeholder tokens have the ids {image_token} and {video_token}, "
            f"but the language prior has {rows} embeddings; resize its embeddings first."
        )
    if not 0 <= frozen_timestep < 1000:
        raise ConfigError(f"The frozen timestep is {frozen_timestep}; it must be from 0 to 999.")
    config = config_from_priors(vision, language, video, image_token, video_token, **settings)
    model = HaploOmniForConditionalGeneration(config).float()
    with torch.no_grad():
        _vision_into_pre(vision, model)
        _language_into_base(language, model)
        _video_into_post(video, model, frozen_timestep)
        _start_new_parts(language, video, model)
    return model


def config_from_priors(
    vision: CLIPVisionModel,
    language: Qwen2ForCausalLM,
    video: CogVideoXTransformer3DModel,
    image_token: int,
    video_token: int,
    **settings: Any,
) -> HaploOmniConfig:
    """The configuration whose three parts have the priors' sizes.

    Args:
        image_token, video_token: ids of the placeholders in the language prior's vocabulary.
        settings: further keys of :class:`HaploOmniConfig`, which win over the priors'.
    """
    base = _base_settings(language)
    connector = {"use_pre_norm": False, "use_affine_bias": True}
    made: dict[str, Any] = {
        **base,
        "base_config": base,
        "pre_config": _pre_settings(vision),
        "post_config": _post_settings(video),
        "pre_connector": connector,
        "post_connector": connector,
        "patch_size": vision.config.patch_size,
        "default_image_size": vision.config.image_size,
        "image_token_index": image_token,
        "video_token_index": video_token,
        "visual_attention": "grouped",
        "max_position_embeddings": language.config.max_position_embeddings,
    }
    return HaploOmniConfig(**{**made, **settings})


def _base_settings(language: Qwen2ForCausalLM) -> dict[str, Any]:
    text_config: Any = language.config
    return {key: getattr(text_config, key) for key in SHARED} | {
        "num_key_value_heads": text_config.num_key_value_heads,
        "rms_norm_eps": text_config.rms_norm_eps,
        "rope_theta": _rope_theta(text_config),
        "vocab_size": _embedding(language).shape[0],
    }


def _pre_settings(vision: CLIPVisionModel) -> dict[str, Any]:
    vision_config: Any = vision.config
    return {key: getattr(vision_config, key) for key in SHARED} | {
        "num_key_value_heads": vision_config.num_attention_heads,
        "rms_norm_eps": vision_config.layer_norm_eps,
        "norm_mode": "layernorm",
        "use_pe": False,
    }


def _post_settings(video: CogVideoXTransformer3DModel) -> dict[str, Any]:
    video_config = video.config
    return {
        "hidden_size": video_config.num_attention_heads * video_config.attention_head_dim,
        "intermediate_size": video.transformer_blocks[0].ff.net[2].in_features,
        "num_hidden_layers": video_config.num_layers,
        "num_attention_heads": video_config.num_attention_heads,
        "num_key_value_heads": video_config.num_attention_heads,
        "hidden_act": VIDEO_ACTIVATIONS[video_config.activation_fn],
        "rms_norm_eps": video_config.norm_eps,
        "norm_mode": "layernorm",
        "use_pe": False,
        "use_qk_norm": True,
    }


def _embedding(language: Qwen2ForCausalLM) -> Tensor:
    """Word embeddings [V, base width]."""
    return cast(nn.Embedding, language.get_input_embeddings()).weight


def _rope_theta(config: Any) -> float:
    given = getattr(config, "rope_parameters", None) or {}
    kind = given.get("rope_type", "default")
    if kind != "default":
        raise ConfigError(f"The language prior has rope_type = {kind}; HaploOmni needs default.")
    return float(given.get("rope_theta", getattr(config, "rope_theta", 10000.0)))


def _copy(target: Any, source: Any) -> None:
    """Weight and bias of a linear layer or a norm; a bias that the source does not have is 0."""
    target.weight.copy_(source.weight)
    if target.bias is not None and source.bias is not None:
        target.bias.copy_(source.bias)
    elif target.bias is not None:
        target.bias.zero_()


def _plain_mlp(block: Block, widen: nn.Linear, narrow: nn.Linear) -> None:
    """A two-layer MLP as the gated one whose second factor is 1."""
    _copy(block.mlp.gate_proj, widen)
    _copy(block.mlp.down_proj, narrow)
    block.mlp.up_proj.weight.zero_()
    block.mlp.up_proj.bias.fill_(1.0)


def _vision_into_pre(vision: CLIPVisionModel, model: HaploOmniForConditionalGeneration) -> None:
    core = model.model
    # patches and their positions; position 0 is the class token's
    core.patch_embed.proj.weight.copy_(vision.embeddings.patch_embedding.weight)
    core.pre_pos_embed.copy_(vision.embeddings.position_embedding.weight[None, 1:])  # (1, P, D)
    _copy(core.pre_norm, vision.pre_layrnorm)
    layers: Any = vision.encoder.layers
    for block, layer in zip(core.layers, layers, strict=False):
        # attention
        for name in ("q_proj", "k_proj", "v_proj"):
            _copy(getattr(block.self_attn, name), getattr(layer.self_attn, name))
        _copy(block.self_attn.o_proj, layer.self_attn.out_proj)
        # MLP and the norms before both
        _plain_mlp(block, layer.mlp.fc1, layer.mlp.fc2)
        _copy(block.input_layernorm, layer.layer_norm1)
        _copy(block.post_attention_layernorm, layer.layer_norm2)


def _language_into_base(language: Qwen2ForCausalLM, model: HaploOmniForConditionalGeneration) -> None:
    core = model.model
    for block, layer in zip(core.layers[core.pre.num_hidden_layers :], language.model.layers, strict=False):
        # the seven matrices
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            _copy(getattr(block.self_attn, name), getattr(layer.self_attn, name))
        for name in ("gate_proj", "up_proj", "down_proj"):
            _copy(getattr(block.mlp, name), getattr(layer.mlp, name))
        # the norms before attention and MLP
        block.input_layernorm.weight.copy_(layer.input_layernorm.weight)
        block.post_attention_layernorm.weight.copy_(layer.post_attention_layernorm.weight)
    core.norm.weight.copy_(language.model.norm.weight)
    model.lm_head.weight.copy_(language.lm_head.weight)


def frozen_time(video: CogVideoXTransformer3DModel, timestep: int) -> Tensor:
    """The video prior's time embedding at one timestep: [1, 512]."""
    weight = video.time_embedding.linear_1.weight
    sinusoid = video.time_proj(torch.tensor([timestep], device=weight.device)).to(weight.dtype)
    return video.time_embedding(sinusoid)


def _fold_time(norm: MultimodalAdaLN, source: Any, time: Tensor) -> None:
    """CogVideoX's norm at a fixed time [1, 512].

    Its (shift, scale, gate) for noise become the latent set, those for text the condition set.
    """
    latent, condition = source.linear(source.silu(time))[0].reshape(2, 3, -1)  # each (3, D)
    norm.SSG_L.copy_(latent)
    norm.SSG_C.copy_(condition)
    _copy(norm, source.norm)


def _video_into_post(
    video: CogVideoXTransformer3DModel, model: HaploOmniForConditionalGeneration, timestep: int
) -> None:
    time = frozen_time(video, timestep)  # (1, 512)
    blocks = model.model.layers[-model.model.post.num_hidden_layers :]
    for block, layer in zip(blocks, video.transformer_blocks, strict=True):
        # attention, with its norms of queries and keys
        attention = layer.attn1
        for name, source in (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v")):
            _copy(getattr(block.self_attn, name), getattr(attention, source))
        _copy(block.self_attn.o_proj, attention.to_out[0])
        _copy(block.self_attn.norm_q, attention.norm_q)
        _copy(block.self_attn.norm_k, attention.norm_k)
        # MLP and the modulated norms before both
        _plain_mlp(block, layer.ff.net[0].proj, layer.ff.net[2])
        _fold_time(block.input_layernorm, layer.norm1, time)
        _fold_time(block.post_attention_layernorm, layer.norm2, time)
    # into and out of the blocks
    model.patch_embed_cogvideo.proj.load_state_dict(video.patch_embed.proj.state_dict())
    for name in ("time_embedding", "norm_final", "norm_out", "proj_out"):
        getattr(model, name).load_state_dict(getattr(video, name).state_dict())


def _start_new_parts(
    language: Qwen2ForCausalLM, video: CogVideoXTransformer3DModel, model: HaploOmniForConditionalGeneration
) -> None:
    """Starting values where there is no prior: words survive both connectors as well as the widths allow.

    A video prior that reads the language prior's own states brings the way from base to post part with it.
    """
    core = model.model
    # words to the pre part's width and back, by the directions in which they differ most
    words = _embedding(language).float()  # (V, base width)
    directions = torch.linalg.svd(words.T @ words).Vh  # orthonormal rows
    ahead = directions[: core.pre.hidden_size]  # (pre width, base width)
    core.embed_tokens.weight.copy_(words @ ahead.T)
    core.pre_connector.affine.weight.copy_(ahead.T)

    # states to the post part's width and back
    if video.config.text_embed_dim == core.base.hidden_size:
        core.post_connector.affine.weight.copy_(video.patch_embed.text_proj.weight)
    else:
        torch.nn.init.orthogonal_(core.post_connector.affine.weight)
    core.post_linear.weight.copy_(torch.linalg.pinv(core.post_connector.affine.weight))
    core.post_linear.bias.zero_()

    # both connectors start on their direct path
    for connector in (core.pre_connector, core.post_connector):
        if connector.affine.bias is not None:
            connector.affine.bias.zero_()
        connector.connector_indicator[1].weight.zero_()
        connector.connector_indicator[1].bias.copy_(torch.tensor([-DIRECT, DIRECT]))
    torch.nn.init.orthogonal_(model.v2t_projector.weight)
    model.v2t_projector.bias.zero_()


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m core.weights.priors``: the three priors and the folder to write."""
    parser = argparse.ArgumentParser(
        prog="python -m core.weights.priors",
        description="Build a HaploOmni from a CLIP, a Qwen2 and a CogVideoX model.",
    )
    parser.add_argument("--vision", required=True, help="CLIP vision model: folder or hub id")
    parser.add_argument(
        "--language", required=True, help="Qwen2 causal language model with its tokenizer: folder or hub id"
    )
    parser.add_argument(
        "--video", required=True, help="CogVideoX transformer (or pipeline folder): folder or hub id"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--frozen-timestep", type=int, default=500, help="folded into the post part (default: 500)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the new parts' starting values (default: 0)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Load the priors, build, write the released layout; exit code 2 with one sentence when that fails."""
    options = build_parser().parse_args(argv)
    torch.manual_seed(options.seed)
    try:
        vision = load_prior(CLIPVisionModel, options.vision)
        language = load_prior(Qwen2ForCausalLM, options.language)
        video = load_prior(CogVideoXTransformer3DModel, options.video, "transformer")
        tokenizer = load_tokenizer(options.language)
        if len(tokenizer) > _embedding(language).shape[0]:
            language.resize_token_embeddings(len(tokenizer))
        tokens = token_settings(tokenizer)
        model = build_from_priors(vision, language, video, **tokens, frozen_timestep=options.frozen_timestep)
    except HaploOmniError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    model.save_pretrained(options.out)
    config = cast(HaploOmniConfig, model.config)
    HaploOmniProcessor.for_config(config, tokenizer).save_pretrained(options.out)
    profile = default_profile(config, model.num_parameters())
    replace(profile, name="HaploOmni from three priors", domain=UNTRAINED).save(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
