"""The parts a HaploOmni block is made of.

Shape legend, used in every comment below this package:
B batch, S sequence (queries), K keys, D width of the part, H heads, G key-value heads, E width of a head,
T tiles or text tokens, F latent frames, h and w sides of latents, N noise tokens, P patches a tile side.
"""

from core.layers.attention import Attention, AttentionContext, FullAttention
from core.layers.connector import Connector
from core.layers.embeddings import LatentPatchEmbed, PatchEmbed, timestep_sinusoid
from core.layers.feed_forward import FeedForward
from core.layers.normalization import Modulated, MultimodalAdaLN, RMSNorm
from core.layers.rotary import rotary_table

__all__ = [
    "Attention",
    "AttentionContext",
    "Connector",
    "FeedForward",
    "FullAttention",
    "LatentPatchEmbed",
    "Modulated",
    "MultimodalAdaLN",
    "PatchEmbed",
    "RMSNorm",
    "rotary_table",
    "timestep_sinusoid",
]
