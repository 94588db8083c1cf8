"""What of the network learns or rests as one, down to the single parameter."""

from __future__ import annotations

from enum import Enum

from core.errors import ConfigError
from core.model.modeling import HaploOmniForConditionalGeneration


class Part(Enum):
    """A part of the network that learns or rests as one.

    Values are what its parameters' names begin with; those of blocks are told by the block's number.
    """

    TOKEN_EMBEDDING = ("model.embed_tokens.",)
    PATCH_EMBEDDING = ("model.patch_embed.", "model.pre_pos_embed", "model.image_newline", "model.pre_norm.")
    PRE = ("pre blocks",)
    PRE_CONNECTOR = ("model.pre_connector.",)
    BASE = ("model.norm.",)
    POST_CONNECTOR = ("model.post_connector.",)
    POST = ("post blocks",)
    ANSWER_PROJECTION = ("model.post_norm.", "model.post_linear.", "model.post_scale")
    LM_HEAD = ("lm_head.",)
    LATENT_PROJECTOR = ("v2t_projector.",)
    LATENT_EMBEDDING = ("patch_embed_cogvideo.", "time_embedding.", "temb_token.")
    DENOISING_HEAD = ("norm_final.", "norm_out.", "proj_out.")


class Norms(Enum):
    """``ADAPTIVE``: multimodal AdaLN. ``PLAIN``: its sets stay neutral, which leaves an ordinary norm."""

    ADAPTIVE = "multimodal AdaLN"
    PLAIN = "plain norm"


def part_of(name: str, layers: tuple[int, int]) -> Part:
    """The part a parameter belongs to.

    Args:
        name: of the parameter.
        layers: numbers of the base part's first block and of the post part's.

    Raises:
        ConfigError: it belongs to none.
    """
    if name.startswith("model.layers."):
        layer = int(name.split(".")[2])
        return (Part.PRE, Part.BASE, Part.POST)[sum(layer >= start for start in layers)]
    for part in Part:
        if any(name.startswith(beginning) for beginning in part.value):
            return part
    raise ConfigError(f"The parameter '{name}' belongs to no part.")


def freeze(
    model: HaploOmniForConditionalGeneration, trainable: tuple[Part, ...], norms: Norms = Norms.ADAPTIVE
) -> int:
    """Let these parts learn and freeze all others; plain norms' modulation sets and indicators rest as well.

    Returns:
        How many numbers learn.
    """
    layers = model.model.part_starts
    count = 0
    for name, parameter in model.named_parameters():
        modulation = "SSG_" in name or "layernorm.indicator" in name
        rests = modulation and norms is Norms.PLAIN
        parameter.requires_grad_(part_of(name, layers) in trainable and not rests)
        count += parameter.numel() * parameter.requires_grad
    return count
