"""Sizes of the bundled model."""

from __future__ import annotations

from core.config import HaploOmniConfig


def tiny_config(vocab_size: int, special: dict[str, int]) -> HaploOmniConfig:
    """The small HaploOmni: the released architecture at 5.4M parameters; ``special`` maps special tokens to ids."""
    base = {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "rope_theta": 10000.0,
        "vocab_size": vocab_size,
    }
    return HaploOmniConfig(
        **base,
        base_config=base,
        pre_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "hidden_act": "quick_gelu",
            "norm_mode": "layernorm",
            "rms_norm_eps": 1e-5,
            "use_pe": False,
        },
        post_config={
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "hidden_act": "gelu_pytorch_tanh",
            "norm_mode": "layernorm",
            "rms_norm_eps": 1e-5,
            "use_pe": False,
            "use_qk_norm": True,
        },
        pre_connector={"use_pre_norm": True, "use_affine_bias": True},
        post_connector={"use_pre_norm": True, "use_affine_bias": True},
        visual_attention="grouped",
        image_aspect_ratio="anyres_max_1",
        image_grid_pinpoints=[[84, 84]],
        default_image_size=84,
        patch_size=14,
        max_position_embeddings=1024,
        image_token_index=special["<image>"],
        video_token_index=special["<video>"],
        eos_token_id=special["<|im_end|>"],
        pad_token_id=special["<|endoftext|>"],
        rms_norm_eps=1e-6,
    )
